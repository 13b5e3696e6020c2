"""Taggers: fitted classifiers that are saved, loaded and applied, whatever the method.

    from shared.taggers import load_tagger
    tagger = load_tagger("outputs/mine")
    tagger("Tokenizer drops the last word")  # {"labels": [...], "scores": {...}}

- `arguments`: flags of the recipes that apply taggers
- `tagger`: `Tagger`, from texts to labels and scores
- `means`: the mean of several taggers
- `folds`: taggers of the folds of a cross-validation, and their mean
- `loading`: `load_tagger`
- `trained_model`, `words`, `embeddings`, `zero_shot`, `language_model`: what computes the scores,
  by method
- `known_labels`: data with the labels that a tagger knows
- `multi_task`: a model of several tasks, applied to rows; a tagger for each task
- `onnx_model`: models in the ONNX format, run by onnxruntime
- `onnx_export`: turn the models of a tagger into ONNX files
- `explanations`: why a text got its labels: the words that weigh most, the nearest labelled texts
- `folder`: the files of a tagger: written, and checked when they are read

May import: `shared.methods` and the rooms below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arguments": ["TaggerArguments"],
        "embeddings": ["EmbeddingScorer"],
        "explanations": ["Explainer", "load_explainer", "tagger_version"],
        "folder": ["EncoderReference", "copy_tagger", "read_tagger", "tagger_fingerprint"],
        "folds": ["save_mean_of_folds"],
        "language_model": ["LanguageModelScorer"],
        "known_labels": ["drop_rare_labels", "load_known_labels"],
        "multi_task": ["load_multi_task", "save_multi_task"],
        "onnx_export": ["export_tagger", "quantize_tagger"],
        "onnx_model": ["OnnxEmbedder", "OnnxModel", "OnnxScorer"],
        "loading": ["load_tagger", "load_taggers", "note_unknown_tokens"],
        "means": ["MeanScorer", "mean_tagger", "save_mean"],
        "tagger": ["Tagger"],
        "trained_model": ["TrainedModelScorer", "save_trained_model"],
        "words": ["WordScorer"],
        "zero_shot": ["ZeroShotScorer"],
    },
)
