from stt_core import ConfigError, STTConfig, STTNode, generate_seed

config = STTConfig(idle_timeout=120.0, keepalive=True)
node = STTNode(node_seed=generate_seed(), shared_seed=generate_seed(), config=config)

try:
    STTConfig(idle_timeout=0.0)
except ConfigError as error:
    print("refused:", error)
