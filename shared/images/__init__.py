"""Images: read them with their labels, masks or boxes, change them, draw them.

- `arguments`: the flags about images and their augmentation.
- `sources`: the files of a folder or a zip archive, and the images in them.
- `annotations`: files of boxes, the list of this project and COCO's.
- `reading`: read a data set, and split it.
- `shapes`: the sample to segment and detect, pictures drawn by code.
- `classic`: the operations of image processing before neural networks, `--preprocess`.
- `augmentation`: random changes of a batch; masks and boxes move with their image.
- `boxes`: overlap of boxes, non-maximum suppression.

May import: `shared.cli`, `shared.plots`, `shared.splitters`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arguments": [
            "AugmentationArguments",
            "ImageArguments",
            "ImageFileArguments",
            "check_task_flags",
        ],
        "augmentation": ["augment_batch"],
        "boxes": ["box_iou", "non_maximum_suppression"],
        "classic": ["preprocess"],
        "reading": ["IGNORED", "ImageData", "load_images", "load_new_images"],
        "sources": ["fit_image", "read_image", "restore_boxes", "restore_mask"],
    },
)
