"""What follows from the verdicts for a user, and which claims have one arm, and why.

Written after the results, and no part of any criterion.
"""

# Claims whose tuned arm has the paper's conditions already, up to the networks' size.
ONE_ARM = {
    "r4": "the tuned arm has its conditions",
    "r8": "the tuned arm has its conditions",
    "r9": "the tuned arm has its conditions",
    "r11": "exact: no conditions",
}

FOLLOWS = {
    "r1": "Do not expect fewer steps where initial weights and rate are the best for "
    "the plain network; expect to search less for them: over 15 of them the "
    "mean accuracy of 5,000 steps was 10 to 94 % without, 89 to 95 % with "
    "(r1.csv, one seed).",
    "r2": "No reason of its own to normalize: the drift is less in widths of a "
    "distribution that has become wider.",
    "r3": "With normalization five times the best rate of the plain network costs 0.8 "
    "points, ten times 3; fifteen times is too much.",
    "r4": "Normalize in front of sigmoids: the network learns more in as many steps.",
    "r5": "Compare with L2 first: in short trainings it was better, and dropout "
    "needed 20,000 steps to win; bound inverted dropout by p c.",
    "r6": "Start with few units dropped (p = 0.8) where the network is small or the "
    "training short; p = 0.5 was too much there.",
    "r7": "Use dropout with 100 to 5,000 images; 10,000, seen 15 times each, were too "
    "many for so short a training.",
    "r8": "Weight scaling, the default at inference, is enough for accuracy: 100 "
    "draws gain less than a tenth of a point.",
    "r9": "Choose Gaussian or Bernoulli dropout as you like: the errors are the same.",
    "r10": "Activations become sparser; here the reconstruction became worse by a "
    "third too.",
    "r11": "The layers compute what the papers say.",
    "r12": "Drop behind the last normalization; with one dropout in front the variance "
    "shifts by 38 %, but no accuracy is lost that recalibrating would give "
    "back.",
    "n2": "In a training of few steps recalibrate, or take a momentum of 0.9: after "
    "100 steps of 32 images 76.5 and 75.0 %, with 0.99 66.6 %, debiased 67.5 %. After "
    "2,000 steps these are the same; 0.999 loses 0.4 points, cumulative 1.5.",
    "n3": "Draw masks to tell foreign inputs (AUROC 0.92 against 0.86), not for better "
    "probabilities: a plain network with a temperature, or three of them, had those "
    "(NLL 0.39 against 0.50), and three plain networks nearly the same AUROC (0.91).",
    "n4": "Do not judge normalization by the shift: noise made it 4.6 times as large, "
    "at a cost of 0.3 points of the mean accuracy, and it was still less than without "
    "normalization.",
    "c1": "Converting costs neither accuracy nor time.",
    "c2": "Converting costs no accuracy, and saves a quarter of the time of a step.",
    "c3": "Converting costs neither accuracy nor time.",
}
