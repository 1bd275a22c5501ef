"""What the verdicts and scales on the pages mean."""

VERDICTS = {
    "reproduced": "every claim that the figure tests holds",
    "by construction": "a diagram, an architecture or a set of inputs, which cannot fail",
    "partial": "some of its claims hold",
    "differs": "none of its claims holds, and at least one is refuted",
    "not comparable": "the run is too small, or its measurements decide no claim",
    "not run": "its data was missing; the command computes it",
}
SCALES = {
    "paper": "all data that the claim is about: the paper's, or MNIST in a lecture; also a "
    "result that needs no data",
    "subset": "the paper's protocol on part of that data, which tests claims in words and "
    "reproduces no accuracies",
    "samples": "about 500 crops of the sample photographs of scikit-image",
    "smoke": "a run so small that it only shows that the code works",
}
