"""The steps of the pipeline: the module of each, in the order of the pipeline. A new step is one more line here."""

STEPS = {
    "validate": "components.data.validate.step",
    "preprocess": "components.data.preprocess.step",
    "tune": "components.training.tune.step",
    "train": "components.training.train",
    "evaluate": "components.evaluation.evaluate",
}
STAGES = tuple(STEPS)
