"""Plain torch loops of what learns from preferences and from rewards: one process, the whole batch at once, each row by itself, the
equations of the papers. What they share with the trainer is its inputs: networks at their first weights, data in its order, noise by name.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.api.job import Job, Spec
from trainjobs.checkpointer.teacher import with_teacher
from trainjobs.data import open_source
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build
from trainjobs.world import World

TARGET, PATTERN = 5, "[a-z]"
REWARDS = [{"function": "length", "target": TARGET}, {"function": "regex", "pattern": PATTERN, "weight": 0.5}]


def trained(manifest: dict[str, Any], cache: Path) -> tuple[dict[str, Tensor], list[list[int]]]:
    """Weights after all steps of gradient descent with momentum 0.9, and what was drawn."""
    spec = Job.model_validate(manifest).spec
    assert spec.language
    source: Any = open_source(spec, cache)
    torch.manual_seed(mix(spec.training.seed, "weights"))
    live = Job.model_validate(manifest | {"spec": without(manifest["spec"], "language", "distill", "topK")}).spec
    made = with_teacher(build(live, source.info), live, source.info, World(0, 1, torch.device("cpu")), cache)
    model: Any = made.modules["model"]
    reference = copy.deepcopy(model)
    settings = spec.training.optimizer("model")
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate, momentum=0.9)
    size, method, drawn = spec.training.batch.global_, spec.language.method, list[list[int]]()

    def learn(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    seen = 0
    for step in range(spec.training.steps):
        positions = torch.arange(seen, seen + size)
        drawing = spec.language.rewarded or spec.language.distill.on_policy
        noise = Noise.of(spec.training.seed, step, "rollout" if drawing else "train.0", positions)
        data = source.batch(positions, spec.training.seed, noise)
        if method == "dpo":
            learn(dpo(model, reference, data, spec.language.dpo.beta))
        elif method == "reward":
            learn(reward(model, data))
        elif method == "distill":
            loss, completions = distill(spec, model, made.modules["teacher"], data, noise)
            learn(loss)
            drawn += completions
        elif spec.language.grpo.dynamic_sampling:
            seen += dynamic(spec, model, reference, source, step, seen, learn)
            continue
        else:
            rows, worth, completions = rolled(spec, model, data, noise)
            (ppo if method == "ppo" else grpo)(spec, model, reference, rows, worth, learn)
            drawn += completions
        seen += size
    return {name: parameter.detach() for name, parameter in model.named_parameters()}, drawn


def without(values: Any, *path: str) -> Any:
    """Values without what lies at a path."""
    first, *rest = path
    return {key: without(value, *rest) if key == first and rest else value for key, value in values.items() if key != first or rest}


def logs(model: Any, tokens: Tensor, first: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Of the tokens of one row from `first` on, each one's log-probability and its whole distribution's."""
    every = (model(input_ids=tokens[None]).logits[0, first - 1 : -1] / temperature).log_softmax(-1)
    return every.gather(1, tokens[first:, None])[:, 0], every


def dpo(model: Any, reference: Any, data: dict[str, Tensor], beta: float) -> Tensor:
    losses = []
    for row in range(len(data["tokens"])):
        ratios = []
        for side in range(2):
            tokens = data["tokens"][row, side, : data["lengths"][row, side]]
            first = int((data["labels"][row, side] != -100).nonzero()[0]) + 1
            with torch.no_grad():
                theirs = logs(reference, tokens, first)[0]
            ratios.append((logs(model, tokens, first)[0] - theirs).sum())
        losses.append(-F.logsigmoid(beta * (ratios[0] - ratios[1])))
    return torch.stack(losses).mean()


def reward(model: Any, data: dict[str, Tensor]) -> Tensor:
    losses = []
    for row in range(len(data["tokens"])):
        scores = [
            model(input_ids=data["tokens"][row, side, :length][None], last=torch.tensor([length]))[0]
            for side, length in enumerate(data["lengths"][row].tolist())
        ]
        losses.append(-F.logsigmoid(scores[0] - scores[1]))
    return torch.stack(losses).mean()


def distill(spec: Spec, model: Any, teacher: Any, data: dict[str, Tensor], noise: Noise) -> tuple[Tensor, list[list[int]]]:
    """The loss of a batch, and the completions that the student drew for it."""
    assert spec.language
    own, context, end = spec.language.distill, spec.language.network.context_length, 256
    whose, uniform = noise.uniform("onPolicy"), noise.uniform("tokens", own.max_completion)
    losses, drawn = [], list[list[int]]()
    for row in range(len(data["tokens"])):
        labels = data["labels"][row]
        learned = (labels != -100).nonzero()[:, 0]
        first, last = int(learned[0]) + 1, int(learned[-1]) + 1
        tokens = torch.cat([data["tokens"][row, :last], labels[last - 1 : last]])
        mine = bool(whose[row] < own.on_policy)
        if mine:
            tokens = tokens[:first]
            for number in range(min(own.max_completion, context - first + 1)):
                with torch.no_grad():
                    below = model(input_ids=tokens[None]).logits[0, -1].softmax(-1).cumsum(0)
                tokens = torch.cat([tokens, (below <= uniform[row, number] * below[-1]).sum()[None]])
                if tokens[-1] == end:
                    break
            drawn.append(tokens[first:].tolist())
        more = {"projected": True} if own.hidden_states else {}
        ours = model(input_ids=tokens[None, :-1], **more)
        with torch.no_grad():
            theirs = teacher(input_ids=tokens[None, :-1], output_hidden_states=True)
        q, p = (torch.softmax(one.logits[0, first - 1 :] / own.temperature, -1) for one in (ours, theirs))
        if own.top_k:
            kept = p.sort(dim=-1, descending=True).indices[:, : own.top_k]
            p, q = (torch.cat([one.gather(1, kept), 1 - one.gather(1, kept).sum(-1, keepdim=True)], -1) for one in (p, q))
        m = own.beta * p + (1 - own.beta) * q
        if own.beta == 0:
            apart = (p * (p / q).log()).sum(-1)
        else:
            apart = own.beta * (p * (p / m).log()).sum(-1) + (1 - own.beta) * (q * (q / m).log()).sum(-1)
        crossed = F.cross_entropy(ours.logits[0, first - 1 :], tokens[first:], reduction="none")
        alpha = 1.0 if mine else own.alpha
        loss = alpha * own.temperature**2 * apart + (1 - alpha) * crossed
        if own.hidden_states:
            gap = ours["projected"][0, first - 1 :] - theirs.hidden_states[-1][0, first - 1 :]
            loss = loss + own.hidden_states * gap.square().mean(-1)
        losses.append(loss)
    return torch.cat(losses).mean(), drawn


def dynamic(spec: Spec, model: Any, reference: Any, source: Any, step: int, seen: int, learn: Any) -> int:
    """A step of grpo with dynamic sampling; how many samples it drew."""
    assert spec.language
    own, size, began = spec.language.grpo, spec.training.batch.global_, seen
    kept: list[tuple[list[tuple[Tensor, int]], Tensor]] = []
    for _ in range(own.dynamic_sampling or 0):
        positions = torch.arange(seen, seen + size)
        noise = Noise.of(spec.training.seed, step, "rollout", positions)
        rows, worth, _ = rolled(spec, model, source.batch(positions, spec.training.seed, noise), noise)
        seen += size
        for first in range(0, size, own.generations):
            group = slice(first, first + own.generations)
            if worth[group].std() > 0:
                kept.append((rows[group], worth[group]))
        if len(kept) >= size // own.generations:
            break
    kept = kept[: size // own.generations]
    flat = not kept
    learn(0.0 * sum(p.sum() for p in model.parameters())) if flat else grpo(
        spec, model, reference, [row for rows, _ in kept for row in rows], torch.cat([worth for _, worth in kept]), learn
    )
    return seen - began


def rolled(spec: Spec, model: Any, data: dict[str, Tensor], noise: Noise) -> tuple[list[tuple[Tensor, int]], Tensor, list[list[int]]]:
    """What is drawn for a batch of prompts: each row's tokens and where its completion begins, what it is worth, and the completions."""
    assert spec.language
    assert spec.language.rewarded
    temperature, most, end = spec.language.rewarded.temperature, spec.language.rewarded.max_completion, ByteTokenizer().end
    uniform = noise.uniform("tokens", most)
    rows, worth, completions = [], [], []
    for row in range(len(uniform)):
        first = int(data["prompt_length"][row])
        tokens = data["prompt"][row, :first]
        with torch.no_grad():
            for number in range(most):
                below = (model(input_ids=tokens[None]).logits[0, -1] / temperature).softmax(-1).cumsum(0)
                chosen = int((below <= uniform[row, number] * below[-1]).sum())
                tokens = torch.cat([tokens, torch.tensor([min(chosen, len(below) - 1)])])
                if chosen == end:
                    break
        completion = tokens[first:].tolist()
        text = ByteTokenizer().decode([token for token in completion if token != end])
        value = 0.0 if spec.language.grpo.dynamic_sampling else -abs(len(text) - TARGET) / TARGET
        value += 0.5 * (re.search(PATTERN, text) is not None)
        if spec.language.method == "ppo" and completion[-1] != end:
            value -= spec.language.ppo.missing_eos_penalty
        rows.append((tokens, first))
        worth.append(value)
        completions.append(completion)
    return rows, torch.tensor(worth), completions


def grpo(spec: Spec, model: Any, reference: Any, rows: list[tuple[Tensor, int]], worth: Tensor, learn: Any) -> None:
    assert spec.language
    own = spec.language.grpo
    groups = worth.view(-1, own.generations)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    with torch.no_grad():
        old = [logs(model, *row, own.temperature)[0] for row in rows]
        theirs = [logs(reference, *row, own.temperature)[0] for row in rows]
    for _ in range(own.epochs):
        tokens = []
        for row, before, held, advantage in zip(rows, old, theirs, advantages, strict=True):
            ours = logs(model, *row, own.temperature)[0]
            ratio = (ours - before).exp()
            kept = torch.minimum(ratio * advantage, ratio.clamp(1 - own.epsilon, 1 + own.epsilon) * advantage)
            tokens.append(-kept + own.beta * ((held - ours).exp() - (held - ours) - 1))
        learn(torch.cat(tokens).mean())


def ppo(spec: Spec, model: Any, reference: Any, rows: list[tuple[Tensor, int]], worth: Tensor, learn: Any) -> None:
    assert spec.language
    own = spec.language.ppo
    olds, expected, gained, returns = [], [], [], []
    with torch.no_grad():
        for row, value in zip(rows, worth, strict=True):
            old, held = (logs(one, *row, own.temperature)[0] for one in (model, reference))
            state = model(input_ids=row[0][None], valued=True)["values"][0, row[1] - 1 : -1]
            rewards = -own.kl_coefficient * (old - held)
            rewards[-1] += value
            advantage = torch.zeros(len(old) + 1)
            for t in reversed(range(len(old))):
                after = state[t + 1] if t + 1 < len(old) else 0.0
                advantage[t] = rewards[t] + own.gamma * after - state[t] + own.gamma * own.lambda_ * advantage[t + 1]
            olds.append(old)
            expected.append(state)
            gained.append(advantage[:-1])
            returns.append(advantage[:-1] + state)
    every = torch.cat(gained)
    whitened = ((every - every.mean()) / (every.var() + 1e-8).sqrt()).split([len(one) for one in gained])
    for _ in range(own.epochs):
        policy, values = [], []
        for row, old, state, advantage, target in zip(rows, olds, expected, whitened, returns, strict=True):
            output = model(input_ids=row[0][None], valued=True)
            every_log = (output.logits[0, row[1] - 1 : -1] / own.temperature).log_softmax(-1)
            ratio = (every_log.gather(1, row[0][row[1] :, None])[:, 0] - old).exp()
            policy.append(torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - own.clip, 1 + own.clip)))
            now = output["values"][0, row[1] - 1 : -1]
            near = torch.maximum(torch.minimum(now, state + own.value_clip), state - own.value_clip)
            values.append(0.5 * torch.maximum((now - target) ** 2, (near - target) ** 2))
        learn(torch.cat(policy).mean() + own.value_coefficient * torch.cat(values).mean())
