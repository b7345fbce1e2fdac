"""What other tools call the fields of a manifest.

By tool, the name as its command line, configuration or Python API has it, and the field of `spec` that means the same. A name that two
tools use for two things stands only where it is the better known, or not at all. `UNITS` says what else is different. A page is made of it,
and an unknown field that has one of these names is answered with ours.
"""

from __future__ import annotations

from trainjobs.api import language_names
from trainjobs.api.problem import plain

DIFFUSERS = {
    "train_batch_size": "training.batch.global",
    "max_train_steps": "training.steps",
    "gradient_accumulation_steps": "training.batch.micro",
    "learning_rate": "training.optimizers.default.learningRate",
    "lr_scheduler": "training.schedule.name",
    "lr_warmup_steps": "training.schedule.warmupSteps",
    "adam_beta1": "training.optimizers.default.betas",
    "adam_beta2": "training.optimizers.default.betas",
    "adam_weight_decay": "training.optimizers.default.weightDecay",
    "adam_epsilon": "training.optimizers.default.eps",
    "max_grad_norm": "training.gradientClipping",
    "mixed_precision": "training.precision",
    "use_ema": "training.ema",
    "ema_max_decay": "training.ema.decay",
    "snr_gamma": "diffusion.process.minSnrGamma",
    "prediction_type": "diffusion.process.prediction",
    "beta_schedule": "diffusion.process.schedule",
    "num_train_timesteps": "diffusion.process.timesteps",
    "rescale_betas_zero_snr": "diffusion.process.zeroTerminalSnr",
    "weighting_scheme": "diffusion.process.timeSampling",
    "num_inference_steps": "diffusion.sampler.steps",
    "guidance_scale": "diffusion.sampler.guidance",
    "proportion_empty_prompts": "diffusion.conditioning.dropout",
    "block_out_channels": "diffusion.network.multipliers",
    "layers_per_block": "diffusion.network.blocks",
    "validation_prompts": "evaluation.prompts",
    "validation_steps": "evaluation.everySteps",
    "checkpointing_steps": "checkpoints.every.steps",
    "checkpoints_total_limit": "checkpoints.keep.last",
    "resume_from_checkpoint": "checkpoints.resumeFrom",
    "train_data_dir": "data.source",
    "dataset_name": "data.source",
    "caption_column": "data.columns.caption",
    "image_column": "data.columns.image",
    "random_flip": "data.images.augment",
    "dataloader_num_workers": "data.workers",
}
KOHYA = {
    "pretrained_model_name_or_path": "training.initialWeights",
    "unet_lr": "training.optimizers.denoiser.learningRate",
    "optimizer_type": "training.optimizers.default.name",
    "min_snr_gamma": "diffusion.process.minSnrGamma",
    "v_parameterization": "diffusion.process.prediction",
    "zero_terminal_snr": "diffusion.process.zeroTerminalSnr",
    "caption_dropout_rate": "diffusion.conditioning.dropout",
    "discrete_flow_shift": "diffusion.process.shift",
    "timestep_sampling": "diffusion.process.timeSampling",
    "max_token_length": "diffusion.conditioning.length",
    "resolution": "data.images.size",
    "flip_aug": "data.images.augment",
    "color_aug": "data.images.augment",
    "enable_bucket": "data.images.buckets",
    "min_bucket_reso": "data.images.buckets.minSide",
    "max_bucket_reso": "data.images.buckets.maxSide",
    "bucket_reso_steps": "data.images.buckets.step",
    "max_data_loader_n_workers": "data.workers",
    "save_every_n_steps": "checkpoints.every.steps",
    "save_last_n_steps": "checkpoints.keep.last",
    "sample_every_n_steps": "evaluation.everySteps",
    "sample_prompts": "evaluation.prompts",
    "full_fp16": "training.precision",
}
STUDIOGAN = {
    "adv_loss": "gan.loss.type",
    "gp_lambda": "gan.loss.gradientPenalty",
    "wc_bound": "gan.loss.weightClip",
    "d_updates_per_step": "gan.loss.criticSteps",
    "apply_g_sn": "gan.generator.spectralNorm",
    "apply_d_sn": "gan.discriminator.spectralNorm",
    "attn_g_loc": "gan.generator.attention",
    "attn_d_loc": "gan.discriminator.attention",
    "z_dim": "gan.generator.latentDim",
    "g_conv_dim": "gan.generator.channels",
    "d_conv_dim": "gan.discriminator.channels",
    "g_lr": "training.optimizers.generator.learningRate",
    "d_lr": "training.optimizers.discriminator.learningRate",
    "r1_lambda": "gan.regularization.r1.gamma",
    "r1_place": "gan.regularization.r1",
    "apply_diffaug": "gan.augment.type",
    "apply_ada": "gan.augment.type",
    "ada_kimg": "gan.augment.images",
    "g_ema_decay": "training.ema.decay",
    "apply_g_ema": "training.ema",
    "total_steps": "training.steps",
    "img_size": "data.images.size",
    "apply_rflip": "data.images.augment",
}
STYLEGAN = {
    "r1_gamma": "gan.regularization.r1.gamma",
    "D_reg_interval": "gan.regularization.r1.every",
    "G_reg_interval": "gan.regularization.pathLength.every",
    "pl_weight": "gan.regularization.pathLength.weight",
    "pl_decay": "gan.regularization.pathLength.decay",
    "pl_batch_shrink": "gan.regularization.pathLength.batchShrink",
    "style_mixing_prob": "gan.generator.styleMixing",
    "map_depth": "gan.generator.mappingLayers",
    "truncation_psi": "gan.generator.truncation",
    "mbstd_group_size": "gan.discriminator.minibatchDeviation.group",
    "ada_target": "gan.augment.target",
    "ada_interval": "gan.augment.everySteps",
    "augpipe": "gan.augment.pipeline",
    "ema_kimg": "training.ema.halfLife",
    "batch_gpu": "training.batch.micro",
    "freezed": "training.freeze",
    "cbase": "gan.generator.channels",
    "glr": "training.optimizers.generator.learningRate",
    "dlr": "training.optimizers.discriminator.learningRate",
    "mirror": "data.images.augment",
    "snap": "checkpoints.every.steps",
    "kimg": "training.steps",
}
PEFT = {
    "lora_r": "language.adapter.rank",
    "lora_alpha": "language.adapter.alpha",
    "lora_dropout": "language.adapter.dropout",
    "target_modules": "language.adapter.targets",
    "lora_target_modules": "language.adapter.targets",
    "modules_to_save": "language.adapter.modulesToSave",
    "use_rslora": "language.adapter.rankStabilized",
    "num_virtual_tokens": "language.adapter.virtualTokens",
}
FOREIGN = {"diffusers": DIFFUSERS, "kohya": KOHYA, "StudioGAN": STUDIOGAN, "StyleGAN": STYLEGAN, "peft": PEFT, **language_names.TOOLS}

UNITS = {
    "train_batch_size": "over all GPUs",
    "gradient_accumulation_steps": "global / (processes * micro) of them are accumulated",
    "adam_beta1": "the first of the two",
    "adam_beta2": "the second of the two",
    "v_parameterization": "v",
    "use_ema": "{}",
    "full_fp16": "fp16",
    "random_flip": "[horizontalFlip]",
    "flip_aug": "[horizontalFlip]",
    "apply_rflip": "[horizontalFlip]",
    "mirror": "[horizontalFlip]",
    "color_aug": "[colorJitter]",
    "apply_diffaug": "diffaug",
    "apply_ada": "ada",
    "apply_g_ema": "{}",
    "r1_gamma": "the loss is gamma / 2 times the squared slope there and here",
    "ema_kimg": "images, not thousands",
    "ada_kimg": "images, not thousands",
    "kimg": "optimizer steps: images / training.batch.global",
    "snap": "steps, not ticks",
    "block_out_channels": "multiples of diffusion.network.channels",
    **language_names.UNITS,
}


def ours(name: str) -> str:
    """'this is training.batch.global here (over all GPUs)' for another tool's name, whatever its case and underscores, else nothing."""
    for tool, names in FOREIGN.items():
        for foreign, path in names.items():
            if plain(foreign) == plain(name):
                unit = f": {UNITS[foreign]}" if foreign in UNITS else ""
                return f"{tool}'s {foreign} is spec.{path} here{unit}"
    return ""


def page() -> str:
    """docs/reference/names.md."""
    lines = [
        "# What others call it",
        "",
        "Fields of a manifest's `spec`, by the names that other tools have for them, made from `trainjobs/api/foreign_names.py`.",
        "`gtj validate` answers each of these names with the field.",
        "",
    ]
    for tool, names in FOREIGN.items():
        lines += [f"## {tool}", "", "| Name there | Field here | |", "| --- | --- | --- |"]
        lines += [f"| `{name}` | `{path}` | {UNITS.get(name, '')} |" for name, path in names.items()]
        lines.append("")
    return "\n".join(lines)
