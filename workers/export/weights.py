"""What a finished training hands on: its weights as safetensors, with all that is needed to use them."""

import json

from safetensors.torch import save

from workers.export.programs import check_weights, write_programs
from workers.protocol.storage import ExperimentFolder, make_folder, write_atomically
from workers.train.trainer import Trainer


def export(trainer: Trainer, folder: ExperimentFolder) -> None:
    """Write the final weights, the programs that the spec asks for and the last confusion matrix into `folder`.

    Raises ExportError where any of them gives other scores than the trained network.
    """
    dataset = trainer.dataset
    metadata = {
        "spec": trainer.spec.model_dump_json(),
        "classes": json.dumps(dataset.classes),
        "mean": json.dumps(trainer.normalisation.mean),
        "std": json.dumps(trainer.normalisation.std),
        "input_shape": json.dumps(dataset.input_shape),
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in trainer.learner.result.state_dict().items()}
    make_folder(folder.export, parents=False)  # that of a deleted experiment is not made again
    write_atomically(folder.weights, save(weights, metadata), parents=False)
    check_weights(folder.weights, trainer.learner.result, trainer.gang.device)
    write_programs(folder, trainer.spec.export)
    if trainer.evaluation is not None:
        matrix = {
            "classes": dataset.classes,
            "counts": trainer.evaluation.confusion.tolist(),
            "accuracy": trainer.evaluation.per_class,
        }
        write_atomically(folder.confusion_matrix, json.dumps(matrix), parents=False)
