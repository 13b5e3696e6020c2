"""What a person looks at: printed summaries, files of an output folder, cards, comparisons.

May import: `shared.methods` and the floors below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cards": ["TaggerCard", "command_line", "write_model_card"],
        "comparison": ["Result", "curves", "report", "result_rows"],
        "cross_validation": ["write_out_of_fold"],
        "predictions": ["format_examples", "prediction_records", "write_tags"],
        "results": ["describe_output", "interval_metrics", "split_metrics", "write_results"],
    },
)
