"""Behaviour tests with perturbed texts, after CheckList (Ribeiro et al. 2020, ACL).

`read_cases` reads a user's YAML file, `make_cases` perturbs test rows, and `evaluate_cases` runs the cases on two versions.
"""

from components.evaluation.behaviour.cases import make_cases
from components.evaluation.behaviour.perturbations import PADDING, PERTURBATIONS
from components.evaluation.behaviour.run_cases import evaluate_cases
from components.evaluation.behaviour.user_cases import UserCases, read_cases

__all__ = ["PADDING", "PERTURBATIONS", "UserCases", "evaluate_cases", "make_cases", "read_cases"]
