"""Behaviour beyond accuracy: texts that are changed on purpose, after CheckList (Ribeiro et al. 2020, ACL).

`read_cases` reads a user's YAML file; `make_cases` changes test rows, and is pure; `collect` asks two versions.
"""

from components.behaviour.cases import make_cases
from components.behaviour.perturbations import KINDS, PADDING
from components.behaviour.trying import Answerer, collect
from components.behaviour.written import Written, read_cases

__all__ = ["KINDS", "PADDING", "Answerer", "Written", "collect", "make_cases", "read_cases"]
