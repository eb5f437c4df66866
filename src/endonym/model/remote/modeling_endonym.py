"""A decoder that was made with endonym and that no class of transformers (5.23) is: it has skips from
layer to layer (depth up-scaling) or a mixture of traits of its own.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

runs this file, which needs torch and transformers only. The decoder's fields are those under "endonym"
in config.json; one that this file does not know is refused. The weights of MTP modules (mtp.*), which
predict further tokens ahead, are not loaded: they change no logit.

Frequencies that depend on the length of the text (dynamic, longrope) follow, as in transformers, the
longest row of the batch so far.

Shapes: B rows, T time, D width, F inner width of an expert, N experts, C channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRMSNorm as RMSNorm
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, eager_attention_forward
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim",
)  # fmt: skip
OTHERS = dict(
    max_position_embeddings=2048, rope_theta=10000.0, rms_norm_eps=1e-6, tie_word_embeddings=False,
    attention_bias=False, mlp_bias=False, qk_norm=False, qkv_bias=None, sliding_window=None,
    layer_types=None, rope_layers="all", rope_scaling=None, partial_rotary_factor=1.0,
    attention_multiplier=None, norm_after=False, norm_before=None, embedding_multiplier=1.0,
    residual_multiplier=1.0, logits_scaling=1.0, final_logit_softcapping=None, experts=None,
    mtp_modules=0, skips=[], skip_alpha=1.0, skip_learned=True,
)  # fmt: skip
EXPERTS = dict(
    shared=0, shared_width=None, first_dense=0, router="softmax", renormalise=True, scaling=1.0,
    groups=1, chosen_groups=1,
)  # fmt: skip
ROPE = {"llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}}  # left out in config.json
FULL, SLIDING = "full_attention", "sliding_attention"


class EndonymConfig(PreTrainedConfig):
    """The fields under "endonym" as attributes; the rotation's as transformers' rope_parameters."""

    model_type = "endonym"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(self, endonym=None, bos_token_id=None, eos_token_id=None, pad_token_id=None, **kw):
        given = {**OTHERS, **(endonym or {})}
        if unknown := given.keys() - OTHERS.keys() - {*SIZES}:
            raise ValueError(f"config.json has fields that this code does not run: {unknown}")
        theta, part = given.pop("rope_theta"), given.pop("partial_rotary_factor")
        scaling = given.pop("rope_scaling") or {"type": "default"}
        for name, value in given.items():
            setattr(self, name, value)
        if endonym:
            self.layer_types = self.layer_types or [FULL] * self.num_hidden_layers
        if self.experts:
            self.experts = {**EXPERTS, **self.experts}
        kind = scaling["type"]
        rest = {name: value for name, value in scaling.items() if name != "type"}
        if kind == "yarn" and not rest.get("factor"):
            rest["factor"] = self.max_position_embeddings / rest["original_max_position_embeddings"]
        self.rope_parameters = {
            "rope_type": kind,
            "rope_theta": theta,
            **ROPE.get(kind, {}),
            **rest,
        }
        if part != 1:
            self.rope_parameters["partial_rotary_factor"] = part
            self.ignore_keys_at_rope_validation = {"partial_rotary_factor"}
        self.bos_token_id, self.eos_token_id, self.pad_token_id = (
            bos_token_id,
            eos_token_id,
            pad_token_id,
        )
        self.use_cache = kw.pop("use_cache", True)
        super().__init__(**kw)

    def to_dict(self):
        """As the folder had it: all fields, those that were changed too, under "endonym"."""
        found = super().to_dict()
        rope = found.pop("rope_parameters")
        kind, theta = rope.pop("rope_type"), rope.pop("rope_theta")
        fields = {
            "rope_theta": theta,
            "partial_rotary_factor": rope.pop("partial_rotary_factor", 1.0),
        }
        fields["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
        fields |= {name: found.pop(name) for name in (*SIZES, *OTHERS) if name in found}
        if SLIDING not in (fields["layer_types"] or ()):
            fields["layer_types"] = None
        same = {name for name in OTHERS if fields[name] == OTHERS[name]}
        found["endonym"] = {name: value for name, value in fields.items() if name not in same}
        return found


def rotary(config, positions, dtype):
    """cos and sin [B, T, R] of the R channels of a head that are turned."""
    rope = config.rope_parameters
    if rope["rope_type"] == "default":
        channels = int(config.head_dim * rope.get("partial_rotary_factor", 1.0))
        step = torch.arange(0, channels, 2, dtype=torch.float, device=positions.device)
        turns, factor = 1.0 / rope["rope_theta"] ** (step / channels), 1.0
    else:
        by_length = rope["rope_type"] in ("dynamic", "longrope")
        length = int(positions.max()) + 1 if by_length else None
        turns, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, positions.device, length)
    angles = positions[..., None].float() * turns
    angles = torch.cat([angles, angles], -1)
    return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)


class Attention(nn.Module):
    is_causal = True

    def __init__(self, config, layer):
        super().__init__()
        width, channels = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads, config.num_key_value_heads
        bias = config.attention_bias if config.qkv_bias is None else config.qkv_bias
        self.q_proj = nn.Linear(width, queries * channels, bias=bias)
        self.k_proj = nn.Linear(width, keys * channels, bias=bias)
        self.v_proj = nn.Linear(width, keys * channels, bias=bias)
        self.o_proj = nn.Linear(queries * channels, width, bias=config.attention_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(channels, config.rms_norm_eps)
            self.k_norm = RMSNorm(channels, config.rms_norm_eps)
        slides = config.layer_types[layer] == SLIDING
        self.config, self.layer_idx, self.head_dim = config, layer, channels
        self.num_key_value_groups = queries // keys
        self.scaling = config.attention_multiplier or channels**-0.5
        self.sliding_window = config.sliding_window if slides else None
        self.turned = slides or config.rope_layers == "all"

    def forward(self, x, mask, turn, past_key_values=None, **kwargs):
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (-1, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        if self.turned:
            size = turn[0].shape[-1]
            turned = apply_rotary_pos_emb(q[..., :size], k[..., :size], *turn)
            q, k = (torch.cat([a, b[..., size:]], -1) for a, b in zip(turned, (q, k), strict=True))
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        out, weights = attend(
            self, q, k, v, mask, scaling=self.scaling, sliding_window=self.sliding_window, **kwargs
        )
        return self.o_proj(out.flatten(-2)), weights


class MLP(nn.Module):
    def __init__(self, width, inner, bias=False):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Which experts a token passes and with what weights; scores in float32.

    softmax: the K best scores. sigmoid: the K best of score + bias, within the groups whose two best
    are highest together (DeepSeek-V3, arXiv:2412.19437); the weights are scores without the bias.
    """

    def __init__(self, experts, width):
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts["count"], width))
        sigmoid = experts["router"] == "sigmoid"
        self.register_buffer("bias", torch.zeros(experts["count"]) if sigmoid else None)

    def forward(self, x):
        experts, groups = self.experts, self.experts["groups"]
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.weight.float())
        scores = scores.softmax(-1) if self.bias is None else scores.sigmoid()
        ranked = scores if self.bias is None else scores + self.bias
        if groups > 1:
            grouped = ranked.unflatten(1, (groups, -1))
            best = grouped.topk(2).values.sum(-1).topk(experts["chosen_groups"]).indices
            outside = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(1, best, False)
            ranked = grouped.masked_fill(outside[..., None], float("-inf")).flatten(1)
        chosen = ranked.topk(experts["chosen"]).indices
        gates = scores.gather(1, chosen)
        if experts["renormalise"]:
            gates = gates / (gates.sum(-1, keepdim=True) + 1e-20)
        return gates * experts["scaling"], chosen


class Experts(nn.Module):
    def __init__(self, experts, width):
        super().__init__()
        count, inner = experts["count"], experts["width"]
        self.gate_up = nn.Parameter(torch.empty(count, 2 * inner, width))
        self.down = nn.Parameter(torch.empty(count, width, inner))

    def forward(self, x, gates, chosen):
        out = x.new_zeros(*chosen.shape, x.shape[1])
        for expert in chosen.unique().tolist():
            row, place = torch.where(chosen == expert)
            gate, up = F.linear(x[row], self.gate_up[expert]).chunk(2, -1)
            out[row, place] = F.linear(F.silu(gate) * up, self.down[expert]).to(out.dtype)
        return (gates.to(out.dtype)[..., None] * out).sum(1)


class MoE(nn.Module):
    def __init__(self, experts, width):
        super().__init__()
        self.router, self.experts = Router(experts, width), Experts(experts, width)
        inner = experts["shared_width"] or experts["shared"] * experts["width"]
        self.shared = MLP(width, inner) if experts["shared"] else None

    def forward(self, x):
        tokens = x.flatten(0, -2)
        out = self.experts(tokens, *self.router(tokens)).view_as(x)
        return out if self.shared is None else out + self.shared(x)


class Block(GradientCheckpointingLayer):
    """x + m attention(x), then x + m mlp(x), with norms on their inputs, their outputs or both, whose
    names depend on their company: those of Llama, EXAONE 4.0 and Gemma 2."""

    def __init__(self, config, layer):
        super().__init__()
        after = config.norm_after
        before = not after if config.norm_before is None else config.norm_before
        names = ["input_layernorm", None, "post_attention_layernorm", None]
        if after:
            names = [None, "post_attention_layernorm", None, "post_feedforward_layernorm"]
        if after and before:
            names[0], names[2] = "input_layernorm", "pre_feedforward_layernorm"
        self.self_attn = Attention(config, layer)
        if config.experts and layer >= config.experts["first_dense"]:
            self.mlp = MoE(config.experts, config.hidden_size)
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size, config.mlp_bias)
        for name in filter(None, names):
            self.add_module(name, RMSNorm(config.hidden_size, config.rms_norm_eps))
        self.names, self.multiplier = names, config.residual_multiplier

    def forward(self, x, mask, turn, past_key_values=None, **kwargs):
        norms = [getattr(self, name) if name else nn.Identity() for name in self.names]
        out = self.self_attn(norms[0](x), mask, turn, past_key_values=past_key_values, **kwargs)[0]
        x = x + self.multiplier * norms[1](out)
        return x + self.multiplier * norms[3](self.mlp(norms[2](x)))


class Alphas(nn.Module):
    """What a skip is multiplied by, under the number of the layer that it leads to. Those that are
    not learned are buffers: from_pretrained() lets every parameter learn."""

    def __init__(self, config):
        super().__init__()
        for layer, _ in config.skips:
            alpha = torch.tensor(config.skip_alpha)
            if config.skip_learned:
                self.register_parameter(str(layer), nn.Parameter(alpha))
            else:
                self.register_buffer(str(layer), alpha)


class EndonymPreTrainedModel(PreTrainedModel):
    config_class = EndonymConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = _supports_sdpa = _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": Block, "attentions": Attention}
    _keep_in_fp32_modules_strict = ["router.bias"]
    _keys_to_ignore_on_load_unexpected = [r"^mtp\."]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, (Router, Experts)):
            for weight in module.parameters():
                nn.init.normal_(weight, std=0.02)
            for bias in module.buffers():
                nn.init.zeros_(bias)
        elif isinstance(module, Alphas):
            for alpha in module.state_dict(keep_vars=True).values():
                nn.init.constant_(alpha, self.config.skip_alpha)


class EndonymModel(EndonymPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList([Block(config, layer) for layer in layers])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.skip_alpha = Alphas(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
        inputs_embeds=None, use_cache=None, **kwargs,
    ):  # fmt: skip
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        config = self.config
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=config)
        if position_ids is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = torch.arange(seen, seen + x.shape[1], device=x.device)[None]
        masks = attention_mask
        if not isinstance(masks, dict):  # generate() may have made them
            make = {FULL: create_causal_mask, SLIDING: create_sliding_window_causal_mask}
            masks = {
                kind: make[kind](
                    config=config, inputs_embeds=x, attention_mask=attention_mask,
                    past_key_values=past_key_values, position_ids=position_ids,
                )
                for kind in set(config.layer_types)
            }  # fmt: skip
        turn = rotary(config, position_ids, x.dtype)
        x = x * config.embedding_multiplier
        sources = dict(
            config.skips
        )  # layer -> the layer whose output joins its input; -1: embedding
        outputs = {-1: x}
        for layer, block in enumerate(self.layers):
            if layer in sources:
                alpha, source = getattr(self.skip_alpha, str(layer)), outputs[sources[layer]]
                x = x + alpha.to(x.device) * source.to(x.device)
            mask = masks[config.layer_types[layer]]
            x = block(
                x, mask, turn, past_key_values=past_key_values, position_ids=position_ids, **kwargs
            )
            if layer in sources.values():
                outputs[layer] = x
        x = self.norm(x) * config.logits_scaling
        return BaseModelOutputWithPast(
            last_hidden_state=x, past_key_values=past_key_values if use_cache else None
        )


class EndonymForCausalLM(EndonymPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = EndonymModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None,
        inputs_embeds=None, labels=None, use_cache=None, logits_to_keep=0, **kwargs,
    ):  # fmt: skip
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, inputs_embeds=inputs_embeds, use_cache=use_cache, **kwargs,
        )  # fmt: skip
        hidden = out.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits, cap = self.lm_head(hidden[:, kept]), self.config.final_logit_softcapping
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        loss = None
        if labels is not None:
            size = self.config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=out.past_key_values,
            hidden_states=out.hidden_states, attentions=out.attentions,
        )  # fmt: skip
