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
    "r4": "Normalize in front of sigmoids: the network learns more in as many steps.",
    "r8": "Weight scaling, the default at inference, is enough for accuracy: 100 draws "
    "gain less than a tenth of a point.",
    "r9": "Choose Gaussian or Bernoulli dropout as you like: the errors are the same.",
    "r11": "The layers compute what the papers say.",
    "c1": "Converting costs neither accuracy nor time.",
    "c2": "Converting costs no accuracy, and saves a quarter of the time of a step.",
    "c3": "Converting costs neither accuracy nor time.",
}
