"""Learning from preferences and from rewards, as users write it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt, StoreUri
from trainjobs.api.only import only
from trainjobs.api.pretrained import Base, ModelUri

# Weights that a method adds beside the network's own (objectives/language/headed.py), which others who load an export know nothing of.
HEADS = ("value.weight", "value.bias", "projection.weight")
CALLED = r"^(length|regex|match|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"  # one of ours, or package.module:function


class Dpo(Model):
    """Direct preference optimisation (Rafailov et al., 2023)."""

    beta: Annotated[float, Field(gt=0, le=100)] = Field(0.1, description="How strongly the reference holds the model (TRL: beta).")
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = Field("sigmoid", description="Function of the margin (TRL: loss_type).")
    label_smoothing: Annotated[float, Field(ge=0, le=0.49), only(loss=("sigmoid", "robust"))] = Field(
        0.0, description="Share of preferences that are taken to be the wrong way round (TRL: label_smoothing)."
    )


class RewardModel(Model):
    """A model of rewards (Bradley and Terry, 1952), learned from preferences."""

    margin: Annotated[float, Field(ge=0, le=1000)] = Field(0.0, description="By how much the better answer's reward is to be larger.")
    centering: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0, description="Weight of the square of the pair's summed rewards, which keeps them around 0 (TRL: center_rewards_coefficient)."
    )


class Worth(Model):
    """A function of completions' worth."""

    function: Annotated[str, Field(min_length=1, max_length=256, pattern=CALLED)] = Field(
        description="package.module:function, called with prompts, completions and the other columns of their rows, each a list, which "
        "returns a number for each, or None to abstain (of a completion of which all abstain nothing is learned); or one of ours: length "
        "(minus the distance from target, as a share of it), regex (1 where the pattern is found), match (1 where the completion is "
        "what the column says).",
    )
    weight: Annotated[float, Field(ge=-1000, le=1000)] = Field(1.0, description="What it is multiplied by before rewards are added.")
    pattern: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(None, description="Of regex.")
    target: PositiveInt | None = Field(None, description="Of length, in characters.")
    column: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(None, description="Of match: the column with the answer.")


class RewardFunction(Worth):
    """What completions are worth."""

    function: Annotated[str, Field(min_length=1, max_length=256, pattern=CALLED)] | None = Field(  # type: ignore[assignment]
        None, description=Worth.model_fields["function"].description
    )
    source: ModelUri | None = Field(
        None,
        description="Instead of a function a trained model of rewards, whose score is the reward: a checkpoint of a run with method: "
        "reward, what gtj checkpoints export makes of one, or any ...ForSequenceClassification of a decoder with one label (TRL: "
        "reward_model_path).",
    )


class Rewarded(Model):
    """What is learned from completions that are drawn within a step, by what they are worth."""

    rewards: Annotated[list[RewardFunction], Field(max_length=8)] = Field([], description="Functions whose rewards are added.")
    max_completion: Annotated[int, Field(ge=1, le=1048576)] = Field(
        64, description="Tokens of a completion at most; it ends earlier at its end token (TRL: max_completion_length, response_length)."
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(1.0, description="Of drawing, and of the loss (TRL: temperature).")
    time_limit: PositiveInt = Field(60, description="Seconds that a reward function may take for a process's completions of a step.")


class Grpo(Rewarded):
    """Group relative policy optimisation (Shao et al., 2024) with rewards that are computed."""

    generations: Annotated[int, Field(ge=2, le=1024)] = Field(
        8, description="Completions of each prompt, a group; divides training.batch.global (TRL: num_generations)."
    )
    beta: Annotated[float, Field(ge=0, le=100)] = Field(0.0, description="Weight of the KL divergence from the reference (TRL: beta).")
    epsilon: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="How far the ratio may fall below 1 (TRL: epsilon).")
    epsilon_high: Annotated[float, Field(gt=0, le=10)] | None = Field(
        None, description="How far the ratio may rise above 1; default: epsilon (TRL: epsilon_high)."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="Whose standard deviation advantages are divided by (TRL: scale_rewards)."
    )
    loss: Literal["dapo", "dr_grpo", "grpo"] = Field(
        "dapo",
        description="dapo: mean over all tokens; grpo: over each completion's, then over completions; dr_grpo: sum over tokens, divided by "
        "maxCompletion (TRL: loss_type).",
    )
    epochs: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Steps on each batch of completions (TRL: num_iterations).")
    mask_truncated: bool = Field(False, description="Completions without an end are not learned from (TRL: mask_truncated_completions).")
    dynamic_sampling: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None,
        description="Batches of prompts that a step may draw until its batch is full of groups whose rewards differ (Yu et al., 2025); "
        "default: one, whatever its groups are.",
    )


class Ppo(Rewarded):
    """Proximal policy optimisation (Schulman et al., 2017; Stiennon et al., 2020) with a value head on the network."""

    kl_coefficient: Annotated[float, Field(ge=0, le=100)] = Field(
        0.05, description="What each token's divergence from the reference costs, as part of its reward (TRL: kl_coef)."
    )
    kl_estimator: Literal["k1", "k3"] = Field(
        "k1",
        description="k1: log p - log p_ref, right in the mean and now and then negative; k3: never negative (TRL: kl_estimator).",
    )
    gamma: Annotated[float, Field(ge=0, le=1)] = Field(1.0, description="Discount of later rewards (TRL: gamma).")
    lambda_: Annotated[float, Field(ge=0, le=1)] = Field(
        0.95, alias="lambda", description="Of generalised advantage estimation: 0 trusts values, 1 rewards alone (TRL: lam)."
    )
    clip: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="How far the ratio may move from 1 (TRL: cliprange).")
    value_clip: Annotated[float, Field(gt=0, le=1000)] = Field(
        0.2, description="How far a value may move from what it was when the completion was drawn (TRL: cliprange_value)."
    )
    value_coefficient: Annotated[float, Field(ge=0, le=100)] = Field(0.1, description="Weight of the values' loss (TRL: vf_coef).")
    epochs: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Steps on each batch of completions (TRL: num_ppo_epochs).")
    missing_eos_penalty: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0, description="Taken from the reward of a completion that was cut off before its end (TRL: missing_eos_penalty)."
    )


class Distill(Model):
    """Distillation from a trained model of the same vocabulary (Hinton et al., 2015; Agarwal et al., 2024)."""

    teacher: Base | None = Field(
        None, description="The model that is learned from, which stays as it is (TRL: teacher_model_name_or_path)."
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        1.0, description="Logits of both are divided by it, and their divergence is multiplied by its square (TRL: temperature)."
    )
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Share of the loss that is the divergence from the teacher; the rest is the cross-entropy of the data."
    )
    beta: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="The divergence: 0 KL(teacher, student), which covers what the teacher says; 1 KL(student, teacher), which stays with "
        "it; between, the generalised Jensen-Shannon divergence (TRL: beta).",
    )
    on_policy: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of sequences whose completion the student draws itself; of those alpha is 1 (TRL: lmbda)."
    )
    max_completion: Annotated[int, Field(ge=1, le=1048576)] = Field(
        64, description="Tokens of a completion that the student draws at most (TRL: max_new_tokens)."
    )
    top_k: Annotated[int, Field(ge=1, le=1048576)] | None = Field(
        None,
        description="Ask the teacher once, before the first step, for so many of the likeliest tokens at every learned one, and do not "
        "keep it in memory; all other tokens count as one class. Default: its whole distribution, at every step (TRL: loss_top_k with "
        "loss_add_tail).",
    )
    prepared: StoreUri | None = Field(
        None,
        description="Folder where gtj prepare --teacher put what the teacher says, with topK: it is read there instead of asking.",
    )
    hidden_states: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0,
        description="Weight of the mean squared difference of the last hidden states, the student's through a trained projection "
        "(Romero et al., 2015).",
    )
