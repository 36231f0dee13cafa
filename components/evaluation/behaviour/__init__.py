"""Behaviour beyond accuracy: texts that are changed on purpose, after CheckList (Ribeiro et al. 2020, ACL).

`read_cases` reads a user's YAML file; `make_cases` changes test rows, and is pure; `collect` asks two versions.
"""

from components.evaluation.behaviour.cases import make_cases
from components.evaluation.behaviour.perturbations import KINDS, PADDING
from components.evaluation.behaviour.run_cases import Answerer, collect
from components.evaluation.behaviour.user_cases import Written, read_cases

__all__ = ["KINDS", "PADDING", "Answerer", "Written", "collect", "make_cases", "read_cases"]
