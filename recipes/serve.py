"""Serve a tagger over HTTP: JSON in, labels and scores out.

Why: other programs, in any language, use a tagger without this project. Texts of requests that
arrive together are tagged together, so that throughput grows with the load.

    accelerate launch recipes/serve.py --model outputs/github_tagger
    accelerate launch recipes/serve.py --model outputs/mine outputs/another --port 8080

    curl -s http://127.0.0.1:8000/tag -H 'Content-Type: application/json' \\
        -d '{"texts": ["Tokenizer drops the last word"]}'

`POST /tag` answers {"results": [{"labels": [...], "scores": {...}}]}, a record for each text, both
best first. `GET /labels` has the labels with their thresholds (null: none, or the label is never
given), `GET /healthz` the load, and `GET /docs` a page on which each can be tried. An error is
{"error": "one line"}, with a status from 400 on. Several taggers, also of different methods, are
averaged.

It listens on this machine only (--host 0.0.0.0: on all networks; it knows no passwords, so put it
behind a proxy that does). On SIGTERM or Ctrl-C it answers what has arrived, and ends with exit code
0.

Expect on two CPU cores: 34 requests of a short text per second from one client, 98 from 32, with a
fine-tuned default encoder; 770 and 1,670 with naive Bayes.
"""

from dataclasses import dataclass

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    quiet_libraries,
)
from shared.evaluation import scores_per_text
from shared.serving import BatchedTagger, Limits, address_of, bind, make_app, run_server
from shared.taggers import TaggerArguments, load_taggers, mean_tagger

DEFAULT_TAGGER = "outputs/github_tagger"


@dataclass
class ServeArguments(TaggerArguments):
    """The flags of this recipe."""

    model: list[str] = flag(
        [DEFAULT_TAGGER], f"Tagger folder, or several to average (default: {DEFAULT_TAGGER})."
    )
    host: str = flag("127.0.0.1", "Address to listen on (default: 127.0.0.1, this machine only).")
    port: int = flag(
        8000, "Port to listen on; 0: any free one (default: 8000).", least=0, most=65535
    )
    max_texts: int = flag(128, "Texts per request (default: 128).", least=1, most=10_000)
    max_characters: int = flag(
        50_000, "Characters per text; longer ones are refused (default: 50000).", least=1
    )
    max_waiting: int = flag(
        4096, "Texts that may wait; further requests get status 503 (default: 4096).", least=1
    )


def main() -> None:
    """Load the taggers, listen, and serve until a signal."""
    args = parse_arguments(ServeArguments, description=__doc__)
    quiet_libraries()
    if args.world_size > 1:
        raise UserError("serve takes one process; start several servers, each with its --port")
    # Listen first: a port in use is seen before models are loaded. Clients wait until then.
    listening = bind(args.host, args.port)
    tagger = mean_tagger(load_taggers(args, DEFAULT_TAGGER), names=args.model)
    tagger.tag(["The first call of a model is the slowest."])

    n_scores = scores_per_text(len(tagger.label_names), args.top_scores)
    batched = BatchedTagger(tagger, n_scores, max_waiting=args.max_waiting)
    name = " and ".join(args.model)
    app = make_app(batched, name, Limits(args.max_texts, args.max_characters))
    address = address_of(listening)
    print(f"Serving {name} ({len(tagger.label_names):,} labels) at {address}", flush=True)
    print(f"Try it at {address}/docs; Ctrl-C stops it", flush=True)
    run_server(app, listening)
    print(f"stopped; {batched.n_tagged:,} texts were tagged")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
