"""Trains control vectors by repeng on a planted model; writes one as repeng does and the logits that repeng steers to, and the directions
of both of its methods, arrays "METHOD.BLOCK".

    python repeng_peer.py MODEL_FOLDER VECTOR.gguf LOGITS.npy DIRECTIONS.npz COEFFICIENT TOKEN...

Run by check_control_vectors.py with a Python that has repeng 0.4, torch and transformers.
"""

import sys

import numpy as np
import planted_model as pm
import planted_truth as pt

np.float_ = np.float64  # repeng 0.4 is of before numpy 2

import torch  # noqa: E402
from repeng import ControlModel, ControlVector, DatasetEntry  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402


def main(folder, vector_path, logits_path, directions_path, coefficient, *tokens):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    by_label = {True: [], False: []}
    for one in pt.examples("intrinsic"):
        by_label[one.expresses].append(f"{pm.prompt_text(one.question, one.system)} {one.answer}")
    data = [DatasetEntry(*pair) for pair in zip(by_label[True], by_label[False], strict=True)]
    steered = ControlModel(model, list(range(pm.BLOCKS)))
    trained = {
        method: ControlVector.train(
            steered, tokenizer, data, hidden_layers=list(range(pm.BLOCKS)), method=method
        )
        for method in ("pca_diff", "pca_center")
    }
    np.savez(
        directions_path,
        **{
            f"{method}.{block}": direction
            for method, vector in trained.items()
            for block, direction in vector.directions.items()
        },
    )
    vector = trained["pca_center"]
    vector.export_gguf(vector_path)
    steered.set_control(vector, float(coefficient))
    with torch.no_grad():
        ids = torch.tensor([[int(token) for token in tokens]])
        np.save(logits_path, steered(ids, use_cache=False).logits[0].numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
