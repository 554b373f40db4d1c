"""Operations on whole models."""
