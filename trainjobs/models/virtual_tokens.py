"""Prompts that are trained, as a model that is called like any other: what stands before the text is nobody else's business.

peft is imported here: whoever needs it imports this inside a function.
"""

from __future__ import annotations

from typing import Any

from peft import PeftModelForCausalLM


class VirtualTokens(PeftModelForCausalLM):  # type: ignore[misc]  # peft has no types
    """`model(input_ids=[B, T]).logits` is [B, T, vocabulary]. The virtual tokens stand before the first of several calls, which have the
    keys and values of those before them."""

    def forward(self, input_ids: Any = None, *, past_key_values: Any = None, **others: Any) -> Any:
        if past_key_values is not None:
            return self.base_model(input_ids=input_ids, past_key_values=past_key_values, **others)
        output = super().forward(input_ids=input_ids, **others)
        output.logits = output.logits[:, -input_ids.shape[1] :]
        return output
