"""Reports: the text that a recipe prints, and the files that it writes to its output folder.

- `results`: metrics, predictions, plots and the model card of one classifier.
- `trained_tagger`: a model that was trained, saved with its results.
- `predictions`: predictions as JSON lines and as text to print; tags of the unlabelled rows.
- `patterns`: what each pattern of pattern-exploiting training scores, and their mean.
- `page_parts`: pages that need no network: styles, scripts and charts that they share.
- `page`: report.html, one page that shows where a classifier is wrong.
- `page_data`: what report.html shows, from arrays to JSON values.
- `exploration`: the figures of a data set, to look at before training.
- `advice`: what to do next, from these figures.
- `explore_page`: explore.html, the page of these figures.
- `excerpts`: texts, shortened to a line.
- `reasons`: why the rows of report.html got their labels.
- `cards`: model cards.
- `label_errors`: rows that are likely to have a wrong label.
- `search`: the trials of a hyper-parameter search.
- `terms`: the terms that speak for and against each label.
- `tables`: the results of a cross-validation on a table.
- `techniques`: the figures of settings of training, and whether they agree with the sources.
- `techniques_page`: report.html of these.
- `verdict`: what the metrics of a run mean, in plain words.
- `hub`: upload a tagger with its card, metrics and plots.
- `cross_validation`: the results of a cross-validation.
- `fold_numbers`: the results of a cross-validation of a regression.
- `repeats`: the mean and the spread of a repeated cross-validation.
- `answers`: the figures of answers to questions, samples, files and the model card.
- `language_models`: the figures of a language model, and how to use it.
- `generated_texts`: scores and samples of a model that writes a text from another one.
- `multi_task`: tables, pictures and predictions of several tasks, and how to use their model.
- `llm_labels`: rows with the labels of a language model, and those for a person to look at.
- `to_label`: the texts to label next, as JSON lines, CSV and tasks of Label Studio.
- `annotators`: how annotators agree, as tables, and the labels merged from theirs.
- `agreement_log`: when labelling more no longer changes what a model says.
- `labelling_curves`: what strategies of active learning save: curves, tables, files.
- `tagged_file`: tagged rows as JSON lines, CSV or Parquet; survives an interruption.
- `input_parts`: the files of a folder, and their parts.
- `tagged_folder`: the output for a folder of files, part by part; survives an interruption.
- `folder_engines`: what tags a folder: this process, or the workers of a Ray cluster.
- `candidates`: the scores of several methods on the same rows: their means, and the best one.
- `comparison`: tables that compare methods over training sizes and seeds.
- `gans`: the figures, pictures and cards of generators of images.
- `images`: pictures of images, and a page of them.
- `image_figures`: the figures and cards of image models.
- `series`: the figures of forecasts, and the card of their model.
- `image_predictions`: what a trained model says of new images.

May import: `shared.taggers` and the rooms below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "advice": ["next_steps"],
        "agreement_log": ["AgreementLog"],
        "annotators": [
            "CONFUSION_COLUMNS",
            "DISPUTED_COLUMNS",
            "MERGED_COLUMNS",
            "alpha_verdict",
            "annotator_rows",
            "confusion_rows",
            "disputed_texts",
            "markdown_table",
            "merged_records",
            "pair_rows",
        ],
        "answers": ["answer_samples", "answer_table", "write_answer_results", "write_answers"],
        "candidates": [
            "candidates_table",
            "choose_candidate",
            "explain_choice",
            "mean_candidates",
            "read_candidate",
            "save_candidate",
            "scores_to_report",
        ],
        "cards": ["TaggerCard", "command_line", "write_adapter_card", "write_model_card"],
        "comparison": ["Result", "curves", "report", "result_rows"],
        "cross_validation": ["write_out_of_fold"],
        "exploration": [
            "copy_figures",
            "label_figures",
            "language_figures",
            "length_figures",
            "map_points",
            "row_figures",
            "row_numbers",
            "template_figures",
            "time_figures",
            "word_figures",
        ],
        "explore_page": ["write_explore_page"],
        "fold_numbers": ["write_out_of_fold_numbers"],
        "folder_engines": ["tag_folder"],
        "gans": [
            "GRID",
            "GRIDS",
            "count_channels",
            "draw_samples",
            "generator_results",
            "weight_counts",
            "write_generator_results",
            "write_samples",
        ],
        "generated_texts": ["seq2seq_usage", "text_samples", "text_score_table"],
        "hub": ["push_to_hub"],
        "image_figures": ["image_results", "write_image_results"],
        "image_predictions": ["write_image_predictions"],
        "images": [
            "training_sheet",
            "write_sheets",
        ],
        "label_errors": ["report_simulation"],
        "input_parts": ["is_folder"],
        "labelling_curves": [
            "simulation_curves",
            "simulation_rows",
            "simulation_table",
            "write_simulation",
        ],
        "language_models": ["likelihood_figures", "likelihood_table", "writer_usage"],
        "llm_labels": ["LABEL_COLUMNS", "LlmLabels"],
        "multi_task": ["join_scores", "write_task_records", "write_task_results"],
        "patterns": ["write_patterns"],
        "predictions": ["describe_neighbours", "format_examples", "tag_unlabelled"],
        "reasons": ["Reasons"],
        "repeats": ["summarize_repeats"],
        "results": [
            "describe_output",
            "interval_metrics",
            "repeat_metrics",
            "split_metrics",
            "write_results",
        ],
        "search": ["write_nested_search", "write_search"],
        "series": ["write_series_results"],
        "tables": ["write_table_predictions", "write_table_results"],
        "techniques": ["SettingResult", "run_record", "write_techniques"],
        "terms": ["write_terms"],
        "trained_tagger": ["save_trained_tagger"],
        "to_label": ["batch_records", "show_batch", "write_batch"],
        "tagged_file": ["DOUBT", "TaggedFile", "check_output", "kept_columns"],
        "verdict": ["fit_metrics", "reading_metrics"],
    },
)
