"""Labels from a large language model: prompts, answers, and what they cost.

- `arguments`: the flags of a server.
- `prompts`: a template filled with labels, examples and a text.
- `answers`: answers as JSON, read without trust.
- `cache`: answers on disk, so that no request costs twice.
- `budget`: limits in requests, tokens and money.
- `endpoint`: chat completions over HTTP.
- `labelling`: the labels of many texts, by the votes of several answers.
- `local_model`: the probabilities of labels by a causal language model, without a server.

May import: `shared.evaluation` and the rooms below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": ["AnswerFormat"],
        "arguments": ["EndpointArguments"],
        "budget": ["Budget"],
        "cache": ["AnswerCache"],
        "endpoint": ["Endpoint"],
        "labelling": ["Labelling", "ask_for_labels"],
        "local_model": ["CausalScorer", "batch_calibrated", "load_causal_scorer"],
        "prompts": ["Prompt", "draw_examples", "read_template"],
    },
)
