"""Chat templates that are known by name, in jinja, written from what those who made the formats say of them:

chatml   OpenAI, chatml.md of openai-python v0.28; the format of Qwen and SmolLM2
llama3   Meta, "Model cards and prompt formats", Llama 3
gemma    Google, "Gemma formatting and system instructions"; there is no system turn, so what it says begins the first of the user's
mistral  Mistral, "Demystifying Mistral's instruct tokenization and chat templates", tokenizer V3, as Mistral-7B-Instruct-v0.3 has it on the
         hub: what the system says begins the last turn of the user. So it does where an answer is behind that, as mistral-common has it
         for fine-tuning; the hub's leaves it out there
zephyr   Hugging Face, model card of zephyr-7b-beta: what opens a turn is plain text, so any tokenizer will do

None puts words into a conversation that has none, such as a date or a system turn by default.
"""

from __future__ import annotations

_ALTERNATING = (
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('behind what the system says, user and assistant take turns') }}{% endif %}"
)
_SYSTEM = (
    "{% if messages and messages[0].role == 'system' %}{% set system = messages[0].content | trim + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
)
_UNTRIMMED = _SYSTEM.replace(" | trim", "")
_ROLES = (
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('it knows the roles system, user and assistant alone') }}{% endif %}"
)

TEXTS = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for message in messages %}" + _ROLES + "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
        "{{ message.content | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "gemma": (
        _SYSTEM + "{{ bos_token }}{% for message in turns %}" + _ALTERNATING + "{% if message.role == 'assistant' %}"
        "{{ '<start_of_turn>model\n' + message.content | trim + '<end_of_turn>\n' }}{% else %}"
        "{{ '<start_of_turn>user\n' + (system if loop.first else '') + message.content | trim + '<end_of_turn>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "mistral": (
        _UNTRIMMED + "{% set last = turns | length - 2 + turns | length % 2 %}"
        "{{ bos_token }}{% for message in turns %}" + _ALTERNATING + "{% if message.role == 'assistant' %}"
        "{{ ' ' + message.content | trim + eos_token }}{% else %}"
        "{{ '[INST] ' + (system if loop.index0 == last else '') + message.content + '[/INST]' }}{% endif %}{% endfor %}"
    ),
    "zephyr": (
        "{% for message in messages %}" + _ROLES + "{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    ),
}

# Special tokens that a tokenizer must have for it, and names that it must give to one.
TOKENS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "mistral": ("[INST]", "[/INST]"),
    "zephyr": (),
}
NAMES = ("bos_token", "eos_token")
