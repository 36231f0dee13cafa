"""The steps of the pipeline in order, each with its module; add a line for a new step."""

STEPS = {
    "validate": "components.data.validate.step",
    "preprocess": "components.data.preprocess.step",
    "tune": "components.training.tune.step",
    "train": "components.training.train",
    "evaluate": "components.evaluation.evaluate",
}
STAGES = tuple(STEPS)
