"""vLLM as a sort of engine: what it serves, and which arguments may be given to it.

An argument has the name of vLLM's own option without its dashes. The table is of vLLM 0.32 and is compared with what an
installed one says of itself (`tests/drivers/vllm`). What is in neither table is refused like what is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bessemer.drivers.engine.protocol import CODE, FILES, OURS, Option, Sort

NAME = "vllm"

_PARSERS = (
    *("deepseek_v3", "granite", "hermes", "internlm", "jamba", "llama3_json", "llama4_pythonic", "mistral"),
    *("openai", "pythonic", "qwen3_coder", "qwen3_xml"),
)

OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "block-size": Option("int", "Tokens in a block of the cache.", 8, 256),
        "cpu-offload-gb": Option("float", "GiB of weights that stay in the host's memory.", 0, 4096),
        "disable-cascade-attn": Option("bool", "Whether prompts that begin alike are computed apart."),
        "disable-sliding-window": Option("bool", "Whether a window is not slid."),
        "dtype": Option(
            "word", "In which numbers it computes.", choices=("auto", "bfloat16", "float16", "float32", "half")
        ),
        "enable-auto-tool-choice": Option("bool", "Whether the model may choose a tool by itself."),
        "enable-chunked-prefill": Option("bool", "Whether a long prompt is computed in pieces."),
        "enable-expert-parallel": Option("bool", "Whether experts lie on several devices."),
        "enable-lora": Option("bool", "Whether it takes adapters while it runs, if it has none at its start."),
        "enable-prefix-caching": Option("bool", "Whether prompts that begin alike are computed once."),
        "enforce-eager": Option("bool", "Whether nothing is compiled; always, on processors."),
        "gpu-memory-utilization": Option("float", "The part of a device's memory that it takes.", 0.01, 1),
        "kv-cache-dtype": Option(
            "word", "In which numbers the cache is kept.", choices=("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2")
        ),
        "kv-cache-memory-bytes": Option(
            "int", "Memory for the cache; without it a quarter, on processors.", 0, 1 << 44
        ),
        "long-prefill-token-threshold": Option("int", "From which length on a prompt is long.", 0, 1 << 24),
        "lora-dtype": Option("word", "In which numbers adapters are.", choices=("auto", "bfloat16", "float16")),
        "max-cpu-loras": Option("int", "Adapters that are kept in the host's memory.", 1, 1024),
        "max-logprobs": Option("int", "The most alternatives that are told of a token.", 0, 1000),
        "max-lora-rank": Option(
            "int", "The largest rank of an adapter: 1, 8, 16, 32, 64, 128, 256, 320 or 512.", 1, 512
        ),
        "max-loras": Option("int", "Adapters in one batch.", 1, 256),
        "max-num-batched-tokens": Option("int", "Tokens that are computed at once.", 32, 1 << 20),
        "reasoning-parser": Option(
            "word",
            "How what it thinks is told from what it says.",
            choices=("deepseek_r1", "deepseek_v3", "glm45", "granite", "mistral", "olmo3", "qwen3"),
        ),
        "scheduling-policy": Option("word", "Who comes first.", choices=("fcfs", "priority")),
        "seed": Option("int", "Of chance.", 0, 2**32 - 1),
        "stream-interval": Option("int", "Tokens in one piece of a stream.", 1, 64),
        "tool-call-parser": Option("word", "How calls of tools are read.", choices=_PARSERS),
        "watermark": Option("float", "The part of the cache that new requests leave free.", 0, 1),
    }
)

_OURS = (
    *(
        "api-key",
        "api-server-count",
        "convert",
        "data-parallel-address",
        "data-parallel-size",
        "device-ids",
        "grpc",
        "grpc-port",
    ),
    *(
        "headless",
        "host",
        "master-addr",
        "master-port",
        "max-model-len",
        "max-num-seqs",
        "model",
        "nnodes",
        "node-rank",
    ),
    *("numa-bind", "pipeline-parallel-size", "port", "root-path", "runner", "served-model-name"),
    *("tensor-parallel-size", "uds"),
)
_FILES = (
    *("allowed-local-media-path", "allowed-media-domains", "chat-template", "config", "download-dir"),
    *("generation-config", "hf-config-path", "hf-token", "lora-modules", "otlp-traces-endpoint", "revision"),
    *("speculative-config", "ssl-ca-certs", "ssl-certfile", "ssl-keyfile", "tokenizer", "tool-server"),
)
_CODE = (
    *("code-revision", "hf-overrides", "io-processor-plugin", "kv-transfer-config", "load-format", "logits-processors"),
    *("middleware", "model-impl", "model-loader-extra-config", "reasoning-parser-plugin", "scheduler-cls"),
    *("tool-parser-plugin", "trust-remote-code", "trust-request-chat-template", "worker-cls", "worker-extension-cls"),
)

REFUSED: Mapping[str, str] = MappingProxyType(
    {**dict.fromkeys(_OURS, OURS), **dict.fromkeys(_FILES, FILES), **dict.fromkeys(_CODE, CODE)}
)

VLLM = Sort(
    NAME,
    formats=("safetensors",),
    options=OPTIONS,
    refused=REFUSED,
    picks="model",
    loads=True,
    salts=True,
    caches=True,
)
