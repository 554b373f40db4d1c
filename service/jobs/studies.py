"""What Optuna knows of the searches: a study each, in an SQLite file.

Its import takes a second: `service/jobs/search.py` imports it once there is a search.
"""

import functools
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna import Study, Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from service.jobs.plan import Plan, takes_integers
from service.jobs.rows import PRUNED, UNFINISHED, Job, State
from training.run.files import history, validation

_JOB = "job"  # the attribute of a trial that holds the number of its job
_PREFIX = "search-"  # before the number of a search: the name of its study
_GOES_ON = (*UNFINISHED, State.INTERRUPTED)  # at the latest at the next start
_FINISHED_BEFORE_PRUNING = 5  # trials
_FIRST_EPOCH_TO_PRUNE = 2

optuna.logging.set_verbosity(optuna.logging.CRITICAL)


class Studies:
    """The studies of a file, which a job finds its trial in by its own number.

    Args:
        path: The file. A missing one is made.
    """

    def __init__(self, path: Path) -> None:
        # Not by its URL: the path may hold any character.
        self._storage = optuna.storages.RDBStorage(
            f"sqlite:///{path.name}", {"creator": functools.partial(_connect, path)}
        )
        self._studies: dict[int, Study] = {}

    def close(self) -> None:
        """Close the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def searches(self) -> list[int]:
        """Return the numbers of the searches that there are studies of."""
        names = optuna.get_all_study_names(self._storage)
        numbers = [name.removeprefix(_PREFIX) for name in names]
        # Other tools may have made studies of other names.
        return [int(n) for n in numbers if n.isdecimal() and _name(int(n)) in names]

    def delete(self, search: int) -> None:
        """Remove the study of a search if there is one."""
        self._studies.pop(search, None)
        if search in self.searches():
            optuna.delete_study(study_name=_name(search), storage=self._storage)

    def draw(self, search: int, plan: Plan, trial: int, job: int) -> dict[str, Any]:
        """Return the values for a job.

        The same search draws the same values for a trial if it knows the same results.
        """
        study = self._study(search)
        seed = np.random.SeedSequence([plan.seed, trial]).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        asked = study.ask(_distributions(plan))
        asked.set_user_attr(_JOB, job)
        return asked.params

    def settle(self, search: int, plan: Plan, jobs: Sequence[Job]) -> None:
        """Bring a study up to what the table says of the jobs of its search.

        A service may have been killed after any change of one of the two.
        """
        drawn: dict[int | None, Job] = {job.id: job for job in jobs if job.is_drawn}
        for trial in self._trials(search, TrialState.RUNNING):
            job = drawn.get(trial.user_attrs.get(_JOB))
            if job is None:  # its draw was cut off, or the job is deleted
                self._study(search).tell(trial.number, state=TrialState.FAIL)
            elif job.state not in _GOES_ON:
                self._report(search, trial, job)
                self._end(search, trial, job)
        complete = self._trials(search, TrialState.COMPLETE)
        known = {trial.user_attrs.get(_JOB) for trial in complete}
        for job in drawn.values():
            if job.state is State.SUCCEEDED and job.id not in known:
                self._add(search, plan, job)  # resumed, or the file was lost

    def complaint(self, search: int, job: Job) -> str | None:
        """Return why a running trial is a bad one, or None."""
        trials = self._trials(search, TrialState.RUNNING)
        trial = next((t for t in trials if t.user_attrs.get(_JOB) == job.id), None)
        if trial is None:  # of a job that was resumed
            return None
        accuracies = self._report(search, trial, job)
        epoch = len(accuracies)
        if epoch == job.config.epochs or not self._live(search, trial).should_prune():
            return None
        complete = self._trials(search, TrialState.COMPLETE)
        others = [t.intermediate_values.get(epoch, np.nan) for t in complete]
        return (
            f"{PRUNED}{epoch}: its best validation accuracy, {max(accuracies):.2%}, is "
            f"below the median of the trials before, {np.nanmedian(others):.2%}."
        )

    def _report(self, search: int, trial: FrozenTrial, job: Job) -> list[float]:
        """Tell the validation accuracies of a trial's finished epochs; return them."""
        rows = history(job.directory)
        accuracies = [row.get("val_accuracy", np.nan) for row in rows]
        live = self._live(search, trial)
        for epoch, accuracy in enumerate(accuracies, start=1):
            if epoch not in trial.intermediate_values:
                live.report(accuracy, epoch)
        return accuracies

    def _end(self, search: int, trial: FrozenTrial, job: Job) -> None:
        study, value = self._study(search), _value(job)
        if job.state is State.SUCCEEDED and value is not None:
            study.tell(trial.number, value)
        elif job.is_pruned:
            study.tell(trial.number, state=TrialState.PRUNED)
        else:
            study.tell(trial.number, state=TrialState.FAIL)

    def _add(self, search: int, plan: Plan, job: Job) -> None:
        value = _value(job)
        if value is not None:
            trial = optuna.create_trial(
                params=plan.drawn_of(job.config),
                distributions=_distributions(plan),
                user_attrs={_JOB: job.id},
                value=value,
            )
            self._study(search).add_trial(trial)

    def _live(self, search: int, trial: FrozenTrial) -> Trial:
        study = self._storage.get_study_id_from_name(_name(search))
        number = self._storage.get_trial_id_from_study_id_trial_number(
            study, trial.number
        )
        return Trial(self._study(search), number)

    def _trials(self, search: int, state: TrialState) -> list[FrozenTrial]:
        return self._study(search).get_trials(deepcopy=False, states=[state])

    def _study(self, search: int) -> Study:
        if search not in self._studies:
            self._studies[search] = optuna.create_study(
                study_name=_name(search),
                storage=self._storage,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=_FINISHED_BEFORE_PRUNING,
                    n_warmup_steps=_FIRST_EPOCH_TO_PRUNE,
                ),
                load_if_exists=True,
            )
        return self._studies[search]


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    # What a loss of power takes from it, `settle` brings back.
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _distributions(plan: Plan) -> dict[str, BaseDistribution]:
    distributions: dict[str, BaseDistribution] = {}
    for name, of in plan.ranges.items():
        if takes_integers(name):
            low, high, step = int(of.low), int(of.high), int(of.step or 1)
            distributions[name] = IntDistribution(low, high, of.log, step)
        else:
            distributions[name] = FloatDistribution(of.low, of.high, of.log, of.step)
    for name, texts in plan.choices.items():
        distributions[name] = CategoricalDistribution(texts)
    return distributions


def _name(search: int) -> str:
    return f"{_PREFIX}{search}"


def _value(job: Job) -> float | None:
    reached = validation(job.directory)
    return reached.accuracy if reached and math.isfinite(reached.accuracy) else None
