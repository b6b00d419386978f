"""vLLM in place of transformers for rollouts and evaluation: faster, and held against it before it is believed.

    evaluate.engine: vllm            # `vllm serve` is started for each arm (ladlib.engine.serving)
    grpo.engine: vllm_colocate       # on the GPUs that train; or vllm_server at grpo.vllm_url, `trl vllm-serve`

Two ways of running one model differ in silence: an image resized again, image tokens put into a prompt twice
(https://github.com/huggingface/trl/issues/6294), a template of the server's own. So before the first answer
counts, both engines answer to a few pairs, and where they differ nothing is run (:mod:`ladlib.engine.parity`).
"""
