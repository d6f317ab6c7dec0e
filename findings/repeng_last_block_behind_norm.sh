#!/usr/bin/env bash
# repeng 0.4.0 with transformers 4.57.3: the direction of the last block is read behind the final norm and added before it.
#
# Guess: a control vector's direction of a block is made of what that block writes to the residual stream, where ControlModel adds it.
# Seen: of all blocks but the last that is so. For the last one repeng takes the last entry of output_hidden_states, and transformers
# puts what the final norm makes there, not what the block gives: rows of norm .08, of 16 numbers, are read with norm 40 where the
# norm's weight is 10.
# repeng's default leaves block 0 out, not the last one, so every vector trained by default has such a row.
# So: do not compare or transfer the last block's row, or take it with a hook on the block; a coefficient that suits the others does
# not suit it.
#
# Exits 0 while that is so, 1 when a version does something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check repeng==0.4.0 torch==2.11.0 transformers==4.57.3 gguf==0.17.1 \
  scikit-learn==1.7.2 numpy==1.26.4
cat >"$folder/probe.py" <<'PYTHON'
import sys

import numpy as np
import repeng.extract
import tokenizers
import torch
import transformers

torch.manual_seed(0)
config = transformers.LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2
)
model = transformers.LlamaForCausalLM(config).eval()
torch.nn.init.constant_(model.model.norm.weight, 10)
words = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({f"w{i}": i for i in range(32)}, unk_token="w0")
)
words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
texts = ["w1 w5 w9", "w2 w6 w3", "w4 w8 w7"]
blocks = list(range(config.num_hidden_layers))
found = repeng.extract.batched_get_hiddens(model, tokenizer, texts, blocks, batch_size=3)

given = {}
for block, module in enumerate(model.model.layers):
    module.register_forward_hook(
        lambda _, __, out, block=block: given.__setitem__(
            block, (out[0] if isinstance(out, tuple) else out)[:, -1]
        )
    )
with torch.no_grad():
    model(**tokenizer(texts, return_tensors="pt", return_token_type_ids=False))
    normed = model.model.norm(given[blocks[-1]]).numpy()
print(f"transformers {transformers.__version__}, torch {torch.__version__}")
reads_block = [bool(np.allclose(found[b], given[b].numpy(), atol=1e-6)) for b in blocks]
for block in blocks:
    sizes = np.linalg.norm(found[block], axis=1).round(2), given[block].norm(dim=1).numpy().round(2)
    print(f"block {block}: norms read {sizes[0]}, given {sizes[1]}, equal: {reads_block[block]}")
behind_norm = bool(np.allclose(found[blocks[-1]], normed, atol=1e-5))
print("the last block's rows are those behind the final norm:", behind_norm)
sys.exit(0 if reads_block == [True, True, False] and behind_norm else 1)
PYTHON
"$folder/venv/bin/python" "$folder/probe.py" || { echo "repeng no longer does what this file says" >&2; exit 1; }
