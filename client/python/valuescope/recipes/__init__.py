"""Evaluations put together from what a client does: generate answers under conditions, have a served model judge them, count.

`free_form_profile` judges answers to open questions from 0 to 10, value by value; `situational_dilemmas` has a judge say which of two
courses of action an answer takes; `attack_success` counts prompts of which at least one answer in k succeeds. Each is a short function
to use, or to copy and change. The samples are our own, to try things with: nobody has validated them.

from valuescope import recipes

profile = recipes.free_form_profile(client, model, recipes.sample_values(), judge=model, conditions=conditions, max_tokens=64)
profile.centred                                # numpy [conditions, values]; profile.plot()
"""

from .attacks import COMPLIES, AttackSuccess, attack_success
from .dilemmas import Dilemmas, situational_dilemmas
from .free_form import FreeFormProfile, free_form_profile
from .samples import sample_dilemmas, sample_requests, sample_values

__all__ = [
    "COMPLIES",
    "AttackSuccess",
    "Dilemmas",
    "FreeFormProfile",
    "attack_success",
    "free_form_profile",
    "sample_dilemmas",
    "sample_requests",
    "sample_values",
    "situational_dilemmas",
]
