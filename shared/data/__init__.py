"""Data: read texts and labels from a file or the hub, clean them, and split them.

This room turns the flag ``--data`` into texts with multi-hot labels, and the labelled texts into a
training, a validation and a test set. It does not tokenise; that is `shared.models.tokenizers`.

Modules:

- `annotations`: the rows of exports of Label Studio, Argilla, Prodigy and doccano.
- `annotators`: who gave the labels, where a file or a column stands for each annotator.
- `answers`: the answers of several annotators to the same texts, kept apart.
- `arguments`: the flags that name the data, the text and label columns, and the sizes of the split.
- `choice`: the rows that a choice between recipes is made on.
- `columns`: which columns of a source hold the texts and the labels, and what a row has in them.
- `corpus`: `Corpus`, the prepared data in memory, and how it is loaded and cached.
- `delimited`: how CSV and TSV files separate and quote their cells, and their rows.
- `documents`: the texts that a language model learns from, and their split.
- `encodings`: the characters and lines of a text file.
- `excel`: the rows of a workbook.
- `folders`: folders of text files, one for each class.
- `folds`: the documents of a cross-validation, and the fold that holds out each of them.
- `folded_numbers`: the same for texts with a number each.
- `json_rows`: the rows of JSON lines, arrays and objects.
- `label_conflicts`: groups of near duplicates, and those whose labels contradict each other.
- `label_noise`: plant wrong labels, to measure how well they are found.
- `label_guide`: what each label means, for a person who labels texts.
- `labelling_pool`: the texts from which a person labels the next ones, and those with labels.
- `labelled_rows`: write the texts of a data set with further columns, such as new labels.
- `labels`: the labels in one cell of a source.
- `languages`: the language of each text.
- `mapped_rows`: apply a function to all rows, such as a tokenizer, and cache the result.
- `near_duplicates`: find groups of texts that are almost the same.
- `pairs`: pairs of texts, one to read and one to write, and their split.
- `preparation`: write one Arrow file from rows: texts, labels, duplicates, statistics.
- `questions`: questions about texts, and where the answers stand in them.
- `readers`: open what `--data` names: a file, several, a folder or a hub data set.
- `resampling`: the splits of an evaluation, held out or in folds, and the rows to fit last.
- `row_labels`: the labels of all rows, and which rows are exact duplicates.
- `saved_datasets`: data sets of the hub, and those that `datasets` saved in a folder.
- `shared_lines`: lines that many texts have in common, such as templates.
- `sources`: `Source`, rows that can be read, wherever they come from.
- `split_columns`: the split that a column names, by part or by time.
- `splits`: `Split`, the training, validation and test set, and how the rows are divided.
- `time_column`: the time of each text, from a column of its own.
- `tables`: rows of numbers and categories with one class each.
- `task_tables`: texts with further columns, as numbers: scaled, coded, or in bins.
- `tasks`: rows with several columns to predict, and columns beside the text.
- `template_questions`: questions on the lines of a template, such as that of bug reports.
- `texts_to_label`: the texts that a person is asked to label, with a tagger's suggestions.
- `times`: read the times in a column.
- `unlabelled`: the unlabelled texts that a recipe trains on.
- `wordnet`: where WordNet's files are, and the words and senses in them.
- `words`: what a word is, in any script.
- `writers`: rows to JSON lines, CSV cells and Parquet.

May import: `shared.cli`, `shared.plots` and `shared.splitters`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": ["Answers", "load_answers"],
        "arguments": [
            "DEFAULT_TEXT_COLUMNS",
            "TOP_SCORES_HELP",
            "UNKNOWN_LABELS_HELP",
            "AnnotatorArguments",
            "ChoiceSplitArguments",
            "DataArguments",
            "FoldSplitArguments",
            "PseudoLabelArguments",
            "SourceArguments",
            "SplitArguments",
            "TaggingArguments",
            "TextFoldArguments",
        ],
        "choice": [
            "ChoiceRows",
            "choose_by_column",
            "choose_by_folds",
            "split_for_choice",
        ],
        "columns": ["find_label_column", "join_text", "recognise_text_columns"],
        "corpus": [
            "Corpus",
            "append_unknown_labels",
            "cache_folder",
            "load_corpus",
            "load_data",
            "load_held_out",
        ],
        "documents": ["DocumentArguments", "Documents", "load_documents"],
        "folded_numbers": ["load_and_fold_numbers"],
        "folds": [
            "assign_folds",
            "describe_folds",
            "join_groups",
            "load_and_fold",
            "read_column",
            "write_outer_folds",
        ],
        "labelled_rows": ["write_labelled_rows"],
        "label_conflicts": ["TextGroup", "text_groups"],
        "label_guide": ["GuideEntry", "read_label_guide"],
        "labelling_pool": ["LabellingPool", "split_for_simulation"],
        "labels": ["has_labels"],
        "languages": ["detect_languages"],
        "mapped_rows": ["add_column", "map_rows"],
        "near_duplicates": ["near_duplicate_groups"],
        "pairs": ["PairArguments", "Pairs", "load_pairs"],
        "preparation": ["is_pull_request"],
        "questions": ["Question", "QuestionArguments", "load_questions", "read_questions"],
        "readers": ["open_data", "open_rows", "open_source"],
        "resampling": [
            "EvaluationArguments",
            "Resampling",
            "cross_validation",
            "load_resampling",
        ],
        "shared_lines": ["SharedLines", "find_shared_lines"],
        "splits": ["Split", "load_and_split", "split_corpus"],
        "tables": ["TableArguments", "TableRows", "TableSchema", "load_table", "read_rows"],
        "tasks": [
            "TaskArguments",
            "TaskData",
            "load_tasks",
        ],
        "template_questions": ["load_template_questions", "read_template"],
        "time_column": ["read_time_column"],
        "texts_to_label": ["TextToLabel", "load_texts_to_label"],
        "unlabelled": ["Unlabelled", "UnlabelledArguments", "load_unlabelled"],
        "writers": ["as_text", "output_format", "write_json_lines", "write_parquet"],
    },
)
