"""What valuescope.lm_eval needs of lm-evaluation-harness, in few lines, for machines that do not have it."""

import importlib.util
import sys
import types

MODELS = {}


class CacheHook:
    def __init__(self):
        self.kept = []

    def add_partial(self, kind, arguments, answer):
        self.kept.append((kind, arguments, answer))


class LM:
    def __init__(self):
        self.cache_hook = CacheHook()


def register_model(*names):
    return lambda model: MODELS.update(dict.fromkeys(names, model)) or model


def normalize_gen_kwargs(arguments, most_tokens):
    """`until` as a list, `max_gen_toks`, and temperature 0 where nothing is sampled."""
    until = arguments.get("until", [])
    arguments["until"] = until if isinstance(until, list) else [until]
    arguments.setdefault("max_gen_toks", most_tokens)
    if not arguments.setdefault("do_sample", arguments.get("temperature", 0) > 0):
        arguments["temperature"] = 0.0
    return arguments


def get_rolling_token_windows(token_list, prefix_token, max_seq_len, context_len):
    """Pairs of what is fed and what is to be predicted by its end, as long as they may be."""
    assert context_len == 1
    behind = [prefix_token, *token_list]
    for begin in range(0, len(token_list), max_seq_len):
        end = min(begin + max_seq_len, len(token_list))
        yield behind[max(0, end - max_seq_len) : end], token_list[begin:end]


def make_disjoint_window(pair):
    fed, predicted = pair
    return fed[: len(fed) - len(predicted) + 1], predicted


def simple_parse_args_string(text):
    return dict(part.split("=", 1) for part in text.split(","))


def install():
    """Puts the names where valuescope.lm_eval looks for them, unless the harness itself is there."""
    if "lm_eval" in sys.modules or importlib.util.find_spec("lm_eval"):
        return
    names = {
        "lm_eval": (),
        "lm_eval.api": (),
        "lm_eval.api.model": (LM,),
        "lm_eval.api.registry": (register_model,),
        "lm_eval.models": (),
        "lm_eval.models.utils": (normalize_gen_kwargs,),
        "lm_eval.utils": (
            get_rolling_token_windows,
            make_disjoint_window,
            simple_parse_args_string,
        ),
    }
    for name, parts in names.items():
        module = sys.modules[name] = types.ModuleType(name)
        for part in parts:
            setattr(module, part.__name__, part)
