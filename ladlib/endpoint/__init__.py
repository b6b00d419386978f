"""The large model through any OpenAI-compatible chat-completions endpoint. No torch.

    profile = load_profile("paper", **{"endpoint.url": "http://localhost:8000/v1", "endpoint.label": "FP8, vLLM 0.11"})
    endpoint.evaluate(profile, Path("data"), RunFolder("results/runs/paper"), seed=0)

Few can load 72 billion parameters; a rented or shared server can. It is sent the same prompt and, as PNG, exactly
the pixels that every other arm sees, and its answers become the same records in the same file. Two things lie with
the server and are no part of the request: the chat template (Qwen2.5-VL's own is the one that the local arms use)
and settings that it takes from the model's repository (vLLM: ``--generation-config vllm`` keeps Qwen's repetition
penalty out of greedy decoding). Quantisation and engine change answers, so the row in every table names them.
:mod:`ladlib.sft_writer` has another model write the data of stage 1.
"""

from ladlib.endpoint.judging import evaluate

__all__ = ["evaluate"]
