from transformers.configuration_utils import PretrainedConfig


class StandInConfig(PretrainedConfig):
    model_type = "stand_in"

    def __init__(
        self,
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        initializer_range=0.02,
        use_cache=True,
        rope_theta=10000,
        rope_scaling=None,
        num_nextn_predict_layers=0,
        tie_word_embeddings=False,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.num_nextn_predict_layers = num_nextn_predict_layers
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
