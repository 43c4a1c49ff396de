"""optimum-onnx's pipeline on the same texts; run by peers.py with another Python.

Reads one JSON object from standard input and prints one: tokens a second by precision and batch.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import BertTokenizerFast, pipeline


def main():
    given = json.load(sys.stdin)
    # Files of transformers 5: an older one reads weights and vocabulary, not the tokenizer's class.
    tokenizer = BertTokenizerFast(
        tokenizer_file=str(Path(given["model"]) / "tokenizer.json"),
        model_max_length=given["max_length"],
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        exported = ORTModelForSequenceClassification.from_pretrained(given["model"], export=True)
        exported.save_pretrained(f"{folder}/fp32")
        ORTQuantizer.from_pretrained(f"{folder}/fp32").quantize(
            save_dir=f"{folder}/int8",
            quantization_config=AutoQuantizationConfig.avx512_vnni(
                is_static=False, per_channel=True
            ),
        )
        for precision, file in (("fp32", "model.onnx"), ("int8", "model_quantized.onnx")):
            model = ORTModelForSequenceClassification.from_pretrained(
                f"{folder}/{precision}", file_name=file
            )
            one = pipeline("text-classification", model=model, tokenizer=tokenizer)
            for batch in (1, 8, 32):
                found[f"{precision}, batch {batch}"] = measured(one, batch, given)
    print(json.dumps(found))


def measured(one, batch, given):
    texts, lengths, size = given["texts"], given["lengths"], given["slice"]
    how = {"batch_size": batch, "truncation": True, "max_length": given["max_length"]}
    one(texts[-16:], **how)
    tokens, started = 0, time.perf_counter()
    for start in range(0, len(texts), size):
        one(texts[start : start + size], **how)
        tokens += sum(lengths[start : start + size])
        if time.perf_counter() - started > given["seconds"]:
            break
    return tokens / (time.perf_counter() - started)


main()
