"""Techniques, each with what holds it: where it is in a manifest, at which ZeRO stages its weights after some steps were compared with
those of a plain torch loop, by which test, against what, and the largest difference that was seen there.

`python -m tests.techniques` makes docs/reference/techniques.md of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path("docs/reference/techniques.md")


@dataclass(frozen=True)
class Technique:
    """`field` is the path in a manifest, without `spec.`; `test` is file::name; `difference` is absolute unless it says of what."""

    name: str
    field: str
    stages: tuple[int, ...]
    test: str
    reference: str
    difference: str


_MATRIX = "tests/equivalence/test_gan_matrix.py::test_follows_plain_torch"
_LOSSES = "tests/objectives/test_gan_losses.py"
_REGULAR = "tests/objectives/test_gan_regularizers.py"
_ANY = "tests/equivalence/test_any_family.py"
_STYLE = "tests/models/test_stylegan2.py"
_LOOP = "plain torch loop, weights after 10 steps"
_GAN = (0, 1, 2)
_CONDITIONED = "tests/equivalence/test_conditioned.py"
_AUGMENT = "tests/data/test_augment.py"
_CLIPPED = "equivalence/test_gan_matrix.py::test_follows_plain_torch"

_ADAPTERS = "tests/equivalence/test_adapters.py::test_an_adapter_follows_plain_peft"
_PEFT = "plain torch loop over plain peft, weights after 10 steps"
_ALL = (0, 1, 2, 3)
_ALIGNED = "tests/equivalence/test_alignment.py::test_weights_are_those_of_a_plain_loop"
_TASKS = "tests/equivalence/test_tasks.py::test_weights_are_those_of_plain_transformers"
_ROWS = "plain transformers, each row by itself, weights after 3 steps"
_PIPELINES = "tests/equivalence/test_pipelines.py::test_follows_plain_diffusers"
_DIFFUSERS = "plain torch loop over plain diffusers and peft, weights after 4 steps"

TECHNIQUES = (
    Technique(
        "fine-tuning",
        "language.base.source",
        (2,),
        _ADAPTERS,
        "plain torch loop over transformers' model, weights after 10 steps",
        "1.2e-7",
    ),
    Technique(
        "gradual unfreezing", "language.unfreezing", (1, 3), _ADAPTERS, "plain torch loop, block by block, weights after 10 steps", "1.8e-7"
    ),
    Technique(
        "chat templates",
        "language.template",
        (0,),
        "tests/data/test_job_template.py::test_a_known_template_writes_the_published_string_with_transformers_tokens",
        "the formats' published strings, transformers' apply_chat_template (token for token)",
        "0",
    ),
    Technique(
        "a teacher asked ahead",
        "language.distill.prepared",
        (0,),
        "tests/equivalence/test_taught_prepared.py::test_a_run_has_the_weights_of_one_that_asks",
        "the same run that asks the teacher itself, weights after 4 steps",
        "0",
    ),
    Technique("masked model", "language.masking.share", _ALL, _TASKS, _ROWS, "1e-7"),
    Technique("sequence to sequence", "language.task", _ALL, _TASKS, _ROWS, "1e-6"),
    Technique("span corruption, by the loop", "language.spanCorruption", (0, 1, 3), _TASKS, _ROWS, "5e-6"),
    Technique(
        "span corruption",
        "language.spanCorruption.noiseDensity",
        (),
        "tests/data/test_spans.py::test_source_and_target_are_the_collator_s",
        "transformers' flax collator for T5, by hand",
        "0",
    ),
    Technique(
        "trained models of rewards",
        "language.grpo.rewards.source",
        (),
        "tests/checkpointer/test_judges.py::test_scores_are_those_of_transformers_and_of_our_own_run",
        "transformers' AutoModelForSequenceClassification",
        "1e-5 of a score",
    ),
    Technique("captions", "language.task", (0, 3), _TASKS, _ROWS, "1e-6"),
    Technique(
        "loss of masked tokens",
        "language.masking",
        (0,),
        "tests/objectives/test_language_tasks.py::test_the_loss_of_a_masked_model_is_transformers_whatever_rows_are_filled_with",
        "transformers' own loss for the same masks; shares of masks as DataCollatorForLanguageModeling's",
        "1e-6 of a loss",
    ),
    Technique(
        "label smoothing of what is written",
        "language.loss.labelSmoothing",
        (0,),
        "tests/objectives/test_language_tasks.py::test_the_loss_of_a_translator_is_transformers",
        "transformers' LabelSmoother",
        "1e-6 of a loss",
    ),
    Technique("BLEU", "evaluation.metrics", (0,), "tests/evaluate/test_writing.py::test_bleu_is_sacrebleu_s", "sacrebleu 2.6.0", "2e-14"),
    Technique(
        "win rate",
        "evaluation.rewards",
        (0, 3),
        "tests/objectives/test_language_contest.py::test_wins_count_one_and_ties_a_half_however_rows_are_cut",
        "completions drawn row by row, compared by hand",
        "0",
    ),
    Technique(
        "attention of packed documents",
        "language.attention",
        (0,),
        "tests/objectives/test_language_attention.py::test_flex_attention_with_the_blocks_is_dense_attention",
        "torch's scaled dot-product attention with a dense mask (forward, on a CPU)",
        "2e-6",
    ),
    Technique(
        "ROUGE-L", "evaluation.metrics", (0,), "tests/evaluate/test_writing.py::test_rouge_is_rouge_score_s", "rouge-score 0.1.2", "0"
    ),
    Technique("LoRA", "language.adapter.type", _ALL, _ADAPTERS, _PEFT, "1.6e-7"),
    Technique("rank-stabilised LoRA", "language.adapter.rankStabilized", (1,), _ADAPTERS, _PEFT, "4.5e-8"),
    Technique("LoRA beside whole layers", "language.adapter.modulesToSave", (2, 3), _ADAPTERS, _PEFT, "4.5e-8"),
    Technique("rows of tokens beside LoRA", "language.adapter.trainTokens", _ALL, _ADAPTERS, _PEFT, "1e-6"),
    Technique("DoRA", "language.adapter.type", (3,), _ADAPTERS, _PEFT, "5.2e-8"),
    Technique("IA3", "language.adapter.type", (2, 3), _ADAPTERS, _PEFT, "0"),
    Technique("prompt tuning", "language.adapter.type", (0, 3), _ADAPTERS, _PEFT, "9.3e-9"),
    Technique("p-tuning", "language.adapter.type", (3,), _ADAPTERS, _PEFT, "1.5e-8"),
    Technique("prefix tuning", "language.adapter.type", (2, 3), _ADAPTERS, _PEFT, "3.7e-9"),
    Technique(
        "bottleneck adapters", "language.adapter.type", (1, 3), _ADAPTERS, "the paper's equation by hand, weights after 10 steps", "3e-8"
    ),
    Technique(
        "curriculum by resolution",
        "data.curriculum.by",
        (2,),
        f"{_ANY}::test_pictures_that_begin_small_are_learned_as_a_plain_loop_learns_them",
        _LOOP,
        "7.5e-8",
    ),
    Technique(
        "distillation of layers",
        "training.distillation.features",
        (0, 3),
        f"{_ANY}::test_a_pupil_learns_what_its_teachers_layers_say",
        _LOOP,
        "1.5e-8",
    ),
    Technique(
        "progressive distillation",
        "training.distillation.progressive",
        (0, 3),
        f"{_ANY}::test_a_sampler_is_halved_as_a_plain_loop_halves_it",
        "plain torch loop over diffusers' DDIM, weights after 10 steps",
        "3.4e-8",
    ),
    Technique("fine-tuning of a pipeline", "diffusion.pretrained.source", _ALL, _PIPELINES, _DIFFUSERS, "1.2e-7"),
    Technique("text encoder trained along", "diffusion.adapt.textEncoder", (0, 3), _PIPELINES, _DIFFUSERS, "6e-8"),
    Technique("LoRA of a pipeline", "diffusion.adapt.type", _ALL, _PIPELINES, _DIFFUSERS, "1.5e-8"),
    Technique("rank, scale and layers of LoRA", "diffusion.adapt.lora", _ALL, _PIPELINES, _DIFFUSERS, "1.5e-8"),
    Technique("DoRA of a pipeline", "diffusion.adapt.lora.useDora", (0, 3), _PIPELINES, _DIFFUSERS, "6e-8"),
    Technique("DreamBooth", "diffusion.adapt.dreambooth", (0, 1, 3), _PIPELINES, _DIFFUSERS, "1.5e-8"),
    Technique("textual inversion", "diffusion.adapt.textualInversion", (0, 2, 3), _PIPELINES, _DIFFUSERS, "1e-7"),
    *(
        Technique(
            name,
            field,
            (),
            "tests/evaluate/test_quality_figures.py::test_figures_are_those_of_others",
            "torchmetrics 1.9.0, pytorch-fid 0.3.0, clean-fid 0.1.35 and prdc 0.2, on the same features",
            "1e-8",
        )
        for name, field in (
            ("FID, KID, inception score, precision and recall", "evaluation.metrics"),
            ("features of other networks", "evaluation.features"),
            ("samples of FID", "evaluation.fidSamples"),
        )
    ),
    Technique("non-saturating loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, "3e-8"),
    Technique("minimax loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("least squares", "gan.loss.type", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("hinge loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("Wasserstein loss, clipped", "gan.loss.type", _GAN, _MATRIX, _LOOP, "9.5e-8"),
    Technique("weight clipping", "gan.loss.weightClip", _GAN, _MATRIX, _LOOP, "9.5e-8"),
    Technique("gradient penalty", "gan.loss.gradientPenalty", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique("drift", "gan.loss.drift", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("one-sided label smoothing", "gan.loss.realLabel", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("critic steps", "gan.loss.criticSteps", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("R1", "gan.regularization.r1", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique(
        "R1",
        "gan.regularization.r1.gamma",
        _GAN,
        f"{_REGULAR}::test_r1_is_that_of_finite_differences_in_float64",
        "finite differences in float64",
        "1.4e-7",
    ),
    Technique("lazy regularisation", "gan.regularization.r1.every", _GAN, _MATRIX, _LOOP, "1.6e-7"),
    Technique("orthogonal regularisation", "gan.regularization.orthogonal", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("class-conditional GAN", "gan.conditional", _GAN, _MATRIX, _LOOP, "2.4e-7"),
    Technique(
        "class-conditional GAN, networks",
        "gan.conditional",
        (),
        "tests/models/test_projection_classes.py::test_the_score_of_a_class_is_that_of_none_and_a_product_with_its_row",
        "the equations by hand",
        "1e-6",
    ),
    Technique("SAGAN", "gan.generator.architecture", (), _MATRIX, _LOOP, "3e-8"),
    Technique(
        "SAGAN, networks",
        "gan.generator.architecture",
        (),
        "tests/models/test_sagan.py::test_the_generator_is_the_paper_s",
        "the blocks as functions, spectral norm by singular values",
        "1e-4",
    ),
    Technique("PGGAN", "gan.generator.architecture", (), _MATRIX, _LOOP, "7.8e-7"),
    Technique(
        "PGGAN, networks",
        "gan.generator.architecture",
        (),
        "tests/models/test_pggan.py::test_an_image_of_a_level_is_the_colours_of_its_features",
        "the paper's table by hand, level by level",
        "1e-6",
    ),
    *(
        Technique("progressive growing", f"gan.progressive.{field}", _GAN, _MATRIX, _LOOP, "7.8e-7")
        for field in ("start", "fadeImages", "stableImages")
    ),
    Technique("self-attention, generator", "gan.generator.attention", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique("self-attention, discriminator", "gan.discriminator.attention", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique("spectral norm, generator", "gan.generator.spectralNorm", _GAN, _MATRIX, _LOOP, "1.1e-8"),
    Technique("spectral norm, discriminator", "gan.discriminator.spectralNorm", _GAN, _MATRIX, _LOOP, "1.1e-8"),
    Technique("minibatch deviation", "gan.discriminator.minibatchDeviation.group", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique(
        "DiffAugment",
        "gan.augment.policy",
        _GAN,
        "tests/objectives/test_gan_diffaugment.py::test_pixels_are_those_of_the_authors_functions",
        "lightweight-gan 1.2.1, pixels",
        "0.0",
    ),
    Technique(
        "StyleGAN2's networks",
        "gan.generator.architecture",
        _GAN,
        f"{_STYLE}::test_networks_are_those_of_another_implementation",
        "BasicSR's stylegan2_arch at commit 8d56e3a, images and scores in float64",
        "4.9e-15",
    ),
    Technique("StyleGAN2's four phases", "gan.discriminator.architecture", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique(
        "mapping network",
        "gan.generator.mappingLayers",
        _GAN,
        f"{_STYLE}::test_networks_are_those_of_another_implementation",
        "BasicSR's stylegan2_arch at commit 8d56e3a, images in float64",
        "4.9e-15",
    ),
    Technique("style mixing", "gan.generator.styleMixing", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique(
        "truncation",
        "gan.generator.truncation",
        (),
        f"{_STYLE}::test_truncation_goes_towards_the_mean_style_of_the_weights_of_now",
        "its formula",
        "1e-6",
    ),
    *(
        Technique("path length", f"gan.regularization.pathLength.{field}", _GAN, _MATRIX, _LOOP, "6e-8")
        for field in ("decay", "every", "batchShrink")
    ),
    Technique(
        "path length",
        "gan.regularization.pathLength.weight",
        _GAN,
        "tests/objectives/test_gan_path_length.py::test_lengths_and_their_gradient_are_those_of_finite_differences_in_float64",
        "finite differences in float64",
        "1e-4 of a slope, relative",
    ),
    Technique(
        "ADA, its operations",
        "gan.augment.pipeline",
        _GAN,
        "tests/objectives/test_gan_ada.py::test_blit_is_numpy_s_flip_rot90_and_pad",
        "numpy's pad, rot90 and fliplr; scipy's Rotation; a picture in closed form",
        "0.0 of blit, 1e-6 of a rotation of colours",
    ),
    *(Technique("ADA, its strength", f"gan.augment.{field}", _GAN, _MATRIX, _LOOP, "6e-8") for field in ("target", "everySteps", "images")),
    Technique(
        "x0 prediction",
        "diffusion.process.prediction",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_loss.py::test_sampling_is_diffusers_ddim",
        "diffusers' DDPMScheduler and DDIMScheduler, prediction_type sample",
        "8e-7 of a noised pixel, 2e-7 of a sample",
    ),
    Technique(
        "scaled-linear schedule",
        "diffusion.process.schedule",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_loss.py::test_schedules_are_those_of_diffusers",
        "diffusers' DDPMScheduler, beta_schedule scaled_linear",
        "5e-7 of abar",
    ),
    Technique(
        "min-SNR weights",
        "diffusion.process.minSnrGamma",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_weights.py::test_min_snr_loss_is_that_of_diffusers_script",
        "diffusers' compute_snr and training script; denoising-diffusion-pytorch's loss_weight",
        "2e-6 of a weight, relative",
    ),
    Technique(
        "zero terminal SNR",
        "diffusion.process.zeroTerminalSnr",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_weights.py::test_zero_terminal_schedules_are_diffusers",
        "diffusers' rescale_zero_terminal_snr and DDIMScheduler",
        "8e-9 of abar, 9e-7 of a sample",
    ),
    Technique(
        "flow matching",
        "diffusion.process.prediction",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_flow.py::test_sampling_is_diffusers_euler",
        "diffusers' FlowMatchEulerDiscreteScheduler",
        "3e-7 of a sample",
    ),
    Technique(
        "logit-normal times",
        "diffusion.process.timeSampling",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_flow.py::test_logit_normal_times_are_those_of_diffusers",
        "diffusers' compute_density_for_timestep_sampling, quantiles of 10 million",
        "1.1e-4 of a quantile",
    ),
    Technique(
        "shifted times",
        "diffusion.process.shift",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_flow.py::test_times_that_are_drawn_follow_their_distribution",
        "diffusers' FlowMatchEulerDiscreteScheduler, shift 3",
        "3e-7 of a sample",
    ),
    Technique(
        "learned variance",
        "diffusion.process.learnedVariance",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_bound.py::test_sampling_with_learned_variance_is_diffusers_ddpm",
        "torch.distributions; denoising-diffusion-pytorch's step losses; diffusers' DDPMScheduler, learned_range",
        "3e-7 bits, 4e-6 bits (five digits printed), 2e-6 of a sample",
    ),
    Technique(
        "learned noise schedule",
        "diffusion.process.schedule",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_learned.py::test_two_interiors_with_the_same_ends_give_the_same_bound",
        "the information of a Gaussian in closed form; autograd's slope",
        "1 % of the bound, from 4,096 samples",
    ),
    Technique(
        "autoencoder of latent diffusion",
        "vae.network.architecture",
        _ALL,
        "tests/equivalence/test_latent.py::test_follows_plain_torch",
        "plain torch loop over diffusers' AutoencoderKL, weights after 3 steps",
        "1e-6",
    ),
    Technique(
        "scale of latents",
        "vae.network.architecture",
        (0, 1, 3),
        "tests/equivalence/test_latent.py::test_scale_of_latents_does_not_depend_on_the_cut_and_is_that_of_their_deviation",
        "the deviation of latents that diffusers draws, of every picture",
        "1e-6 of it between cuts",
    ),
    Technique(
        "latent diffusion",
        "diffusion.latents.autoencoder",
        _ALL,
        "tests/equivalence/test_latent.py::test_follows_plain_torch",
        "plain torch loop over the latents of diffusers' AutoencoderKL, weights after 3 steps",
        "1e-6",
    ),
    Technique(
        "cached latents",
        "diffusion.latents.cache",
        _ALL,
        "tests/equivalence/test_latent.py::test_kept_latents_are_those_encoded_anew_to_the_last_bit",
        "latents that are encoded in each step",
        "0",
    ),
    Technique(
        "KL annealing",
        "vae.loss.annealing",
        (0, 1, 2, 3),
        "tests/objectives/test_vae_annealing.py::test_cyclical_annealing_is_the_paper_s",
        "Fu et al., equations 6 and 7; torch.distributions",
        "1e-6 of a weight",
    ),
    Technique(
        "free bits",
        "vae.loss.freeBits",
        (0, 1, 2, 3),
        "tests/objectives/test_vae_annealing.py::test_free_bits_are_of_each_sample_and_dimension",
        "torch.distributions",
        "1e-5 of a loss, relative",
    ),
    Technique(
        "loss of few pictures at held-out noise",
        "evaluation.metrics",
        (0, 1),
        "tests/evaluate/test_instance.py::test_it_is_the_mean_of_plain_torch_s_losses",
        "plain torch",
        "1e-5 of a loss, relative",
    ),
    Technique(
        "active units",
        "evaluation.metrics",
        (),
        "tests/evaluate/test_active_units.py::test_dimensions_that_move_by_more_than_a_tenth_are_active",
        "numpy's variance",
        "0",
    ),
    Technique(
        "fp16",
        "training.precision",
        (0, 1, 2, 3),
        f"{_ANY}::test_fp16_is_autocast_and_torchs_scaler",
        "plain torch loop with torch's autocast and GradScaler, weights after 10 steps at stage 0",
        "0",
    ),
    Technique(
        "loss scale",
        "training.precision",
        (0, 1, 2, 3),
        "tests/engine/test_loss_scale.py::test_scale_is_that_of_torchs_scaler",
        "torch.amp.GradScaler, 300 updates",
        "0",
    ),
    Technique(
        "reduction on a plateau",
        "training.schedule.factor",
        (0, 1, 2, 3),
        "tests/optim/test_plateau.py::test_ratio_is_torchs",
        "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "0",
    ),
    Technique(
        "early stopping",
        "training.earlyStopping",
        (0, 1, 2, 3),
        "tests/monitor/test_followed.py::test_it_is_over_when_nothing_got_better",
        "its definition, counted from the end",
        "0",
    ),
    Technique(
        "half-life of the average",
        "training.ema.halfLife",
        (0, 1, 2, 3),
        "tests/engine/test_ema.py::test_weights_count_half_after_a_half_life",
        "StyleGAN's formula",
        "1e-6",
    ),
    Technique(
        "batch norm of the average",
        "training.ema",
        (0, 1, 2, 3),
        "tests/evaluate/test_running_norms.py::test_statistics_are_the_mean_over_all_batches",
        "torch's mean and variance of the same samples",
        "1e-6",
    ),
    *(
        Technique(name, field, _ALL, f"{_ANY}::test_frozen_parameters_stay_and_thaw_with_a_new_optimizer", _LOOP, "6e-8")
        for name, field in (("freezing", "training.freeze"), ("gradual unfreezing", "training.unfreeze"))
    ),
    Technique(
        "gradient checkpointing",
        "training.gradientCheckpointing",
        (0, 2, 3),
        f"{_ANY}::test_blocks_computed_again_give_the_same_weights",
        "the same run without it",
        "0",
    ),
    Technique(
        "compiled blocks",
        "training.compile",
        (0, 2),
        "tests/equivalence/test_compiled.py::test_weights_differ_by_rounding",
        "the same run without it",
        "1e-5",
    ),
    Technique(
        "TF32",
        "training.tf32",
        (0,),
        "tests/models/test_tf32.py::test_a_run_trains_under_torchs_own_switch",
        "torch's switch",
        "0",
    ),
    Technique(
        "Muon",
        "training.optimizers",
        (0,),
        "tests/optim/test_muon.py::test_weights_are_those_of_torchs_muon_and_adamw",
        "torch.optim.Muon and torch.optim.AdamW",
        "0",
    ),
    Technique(
        "distillation",
        "training.distillation",
        (0, 3),
        f"{_ANY}::test_a_pupil_learns_what_a_plain_loop_teaches",
        _LOOP,
        "3e-8",
    ),
    Technique(
        "sparse weights and activations",
        "training.sparsity",
        (0, 2, 3),
        f"{_ANY}::test_sparse_weights_and_activations_are_those_of_a_plain_loop",
        _LOOP,
        "7.5e-8",
    ),
    Technique(
        "batch norm over ranks",
        "training.syncBatchNorm",
        (1,),
        f"{_ANY}::test_batch_norm_of_all_ranks_is_that_of_the_whole_batch",
        "plain torch loop over the whole batch, weights and running statistics after 10 steps",
        "1.8e-7",
    ),
    *(
        Technique(name, field, (0, 2, 3), f"{_CONDITIONED}::test_follows_plain_torch", "plain torch loop, diffusers' DDPMScheduler", "1e-6")
        for name, field in (
            ("class conditioning", "diffusion.conditioning.type"),
            ("text conditioning", "diffusion.conditioning.type"),
            ("dropped conditions", "diffusion.conditioning.dropout"),
        )
    ),
    Technique(
        "text encoder",
        "diffusion.conditioning.width",
        (0, 2, 3),
        "tests/models/test_condition.py::test_a_layer_is_torchs_encoder_layer",
        "torch's TransformerEncoderLayer",
        "2e-6",
    ),
    Technique(
        "attention to a text",
        "diffusion.conditioning.heads",
        (0, 2, 3),
        "tests/models/test_condition.py::test_cross_attention_is_diffusers",
        "diffusers' Attention",
        "2e-6",
    ),
    Technique(
        "classifier-free guidance",
        "diffusion.sampler.guidance",
        (),
        "tests/objectives/test_diffusion_guidance.py::test_samples_are_led_as_diffusers_pipelines_lead_them",
        "the formula of diffusers' StableDiffusionPipeline",
        "0.0",
    ),
    Technique(
        "transformer over patches (DiT)",
        "diffusion.network.architecture",
        (0, 2, 3),
        "tests/models/test_dit.py::test_its_numbers_are_diffusers",
        "diffusers' DiTTransformer2DModel",
        "1e-5",
    ),
    Technique(
        "attention at chosen resolutions",
        "diffusion.network.attentionResolutions",
        (0, 2, 3),
        f"{_CONDITIONED}::test_follows_plain_torch",
        "plain torch loop, diffusers' DDPMScheduler",
        "1e-6",
    ),
    Technique(
        "aspect-ratio buckets",
        "data.images.buckets",
        (0, 1, 2, 3),
        "tests/equivalence/test_buckets.py::test_a_plain_loop_learns_the_same_of_the_same_shapes",
        "plain torch loop over Pillow's pictures, diffusers' DDPMScheduler; the shapes of kohya's sd-scripts",
        "1e-6",
    ),
    *(
        Technique(name, f"data.images.{field}", (), f"{_AUGMENT}::test_each_change_is_torchvisions", f"torchvision 0.28.0, {of}", "2e-6")
        for name, field, of in (
            ("random rotation", "strength.rotation", "rotate"),
            ("random crop", "strength.crop", "pad and crop"),
            ("colour jitter", "augment", "adjust_brightness, contrast, saturation, hue"),
        )
    ),
    *(
        Technique(name, field, (0, 1, 2, 3), f"tests/equivalence/test_answers.py::{test}", "plain torch loop, document by document", "2e-6")
        for name, field, test in (
            ("answers only", "language.loss.tokens", "test_weights_are_those_of_a_plain_loop"),
            ("loss by tokens", "language.loss", "test_the_loss_that_is_told_is_the_mean_over_tokens_however_it_is_cut"),
            ("packing", "language.packing", "test_weights_are_those_of_a_plain_loop"),
        )
    ),
    *(
        Technique(name, field, _ALL, _ALIGNED, "plain torch loop, each row by itself, weights after 3 steps", "2e-6")
        for name, field in (
            ("DPO, by the loop", "language.dpo"),
            ("reward model, by the loop", "language.reward"),
            ("GRPO, by the loop", "language.grpo"),
            ("PPO", "language.ppo"),
        )
    ),
    *(
        Technique(name, field, stages, _ALIGNED, "plain torch loop, each row by itself, weights after 3 steps", "2e-6")
        for name, field, stages in (
            ("dynamic sampling", "language.grpo.dynamicSampling", (0, 3)),
            ("distillation", "language.distill", _ALL),
            ("distillation, a teacher's likeliest tokens", "language.distill.topK", (0, 3)),
            ("distillation on policy", "language.distill.onPolicy", _ALL),
            ("hidden states of a teacher", "language.distill.hiddenStates", _ALL),
        )
    ),
    *(
        # By function, in one process; by the loop at every stage are the three above.
        Technique(name, field, (0,), f"tests/objectives/{test}", reference, difference)
        for name, field, test, reference, difference in (
            (
                "packing, one gradient",
                "language.packing",
                "test_language_answers.py::test_a_packed_gradient_is_that_of_each_document_alone",
                "transformers' loss, each document alone",
                "4.4e-7 of a gradient",
            ),
            (
                "label smoothing of labels",
                "language.loss.labelSmoothing",
                "test_language_answers.py::test_loss_and_gradient_are_transformers_by_pieces_too",
                "transformers' LabelSmoother",
                "2e-6 of a gradient",
            ),
            (
                "cross-entropy by pieces",
                "language.loss.chunk",
                "test_language_answers.py::test_loss_and_gradient_are_transformers_by_pieces_too",
                "transformers' LabelSmoother",
                "4.5e-7 of a gradient",
            ),
            ("DPO", "language.dpo.beta", "test_language_preference.py::test_losses_are_trls", "TRL 1.16.0", "1e-12 of a loss"),
            (
                "IPO, hinge, robust",
                "language.dpo.loss",
                "test_language_preference.py::test_losses_are_trls",
                "TRL 1.16.0",
                "1e-12 of a loss",
            ),
            (
                "conservative DPO",
                "language.dpo.labelSmoothing",
                "test_language_preference.py::test_smoothing_mixes_in_the_other_way_round",
                "the equation",
                "1e-7 of a loss",
            ),
            (
                "reward model",
                "language.reward",
                "test_language_preference.py::test_a_reward_is_read_at_the_last_token_by_length_and_its_loss_is_bradleys_and_terrys",
                "transformers' classifier, each answer alone; the equation",
                "2e-5 of a reward",
            ),
            ("GRPO, DAPO, Dr. GRPO", "language.grpo.loss", "test_language_grpo.py::test_losses_are_trls", "TRL 1.16.0", "1e-6 of a loss"),
            ("group advantages", "language.grpo.scaleRewards", "test_language_grpo.py::test_advantages_by_hand", "by hand", "1e-6"),
            (
                "PPO, advantages",
                "language.ppo.lambda",
                "test_language_ppo.py::test_advantages_of_six_tokens_are_those_by_hand",
                "by hand",
                "1e-12",
            ),
            (
                "GKD, reverse and forward KL",
                "language.distill.beta",
                "test_language_distilling.py::test_divergences_are_trls",
                "TRL 1.16.0's generalized_jsd_loss",
                "1e-12 of a loss",
            ),
            (
                "DDPO, density of a step",
                "diffusion.ddpo",
                "test_diffusion_ddpo.py::test_densities_are_those_of_diffusers_ddim_step",
                "diffusers' DDIMScheduler.step",
                "1e-5 of a logarithm",
            ),
            (
                "DDPO, statistics by prompt",
                "diffusion.ddpo.promptBuffer",
                "test_diffusion_ddpo.py::test_statistics_are_the_prompts_own_once_it_has_enough_and_are_kept",
                "by hand",
                "1e-5",
            ),
        )
    ),
    *(
        Technique(name, field, (), f"tests/{test}", reference, difference)
        for name, field, test, reference, difference in (
            *(
                (
                    f"batch norm, {network}",
                    f"gan.{network}.normalization",
                    "models/test_normalization.py::test_batch_norm_is_pytorchs",
                    "torch's BatchNorm1d and BatchNorm2d",
                    "1e-5",
                )
                for network in ("generator", "discriminator")
            ),
            (
                "reconstruction",
                "vae.loss.reconstruction",
                "objectives/test_vae_loss.py::test_reconstructions_are_log_likelihoods_of_torch_distributions",
                "torch.distributions, float64",
                "1e-12 of a loss",
            ),
            (
                "weight of the divergence",
                "vae.loss.beta",
                "objectives/test_vae_loss.py::test_loss_is_reconstruction_plus_beta_kl",
                "torch.distributions",
                "1e-5 of a loss, relative",
            ),
            *(
                (
                    "DDIM and DDPM",
                    f"diffusion.sampler.{field}",
                    "objectives/test_diffusion_loss.py::test_sampling_is_diffusers_ddim",
                    "diffusers' DDIMScheduler",
                    "2e-4 of a sample",
                )
                for field in ("name", "steps", "eta")
            ),
        )
    ),
    *(
        Technique(name, f"training.{field}", stages, f"tests/{test}", reference, difference)
        for name, field, stages, test, reference, difference in (
            ("optimizers", "optimizers", (), "optim/test_optimizers.py::test_follows_the_formula", "the papers' equations by hand", "1e-6"),
            (
                "warm-up and decay of rates",
                "schedule",
                (),
                "optim/test_schedule.py::test_follows_torch",
                "torch's LinearLR, CosineAnnealingLR and SequentialLR",
                "1e-12 of a rate",
            ),
            ("gradient clipping", "gradientClipping", _GAN, _CLIPPED, _LOOP, "3e-8"),
            (
                "warm-up of the average",
                "ema.warmup",
                (),
                "engine/test_ema.py::test_a_run_of_fifty_steps_is_that_of_diffusers",
                "diffusers' EMAModel, 50 steps",
                "1e-6",
            ),
            (
                "weights to begin with",
                "initialWeights",
                (0, 1),
                "equivalence/test_initial_weights.py::test_losses_are_those_that_transformers_finds",
                "transformers, from the exported folder",
                "1e-5 of a loss",
            ),
        )
    ),
)


def page() -> str:
    """docs/reference/techniques.md."""
    lines = [
        "# Techniques and what holds them",
        "",
        "Made from `tests/techniques.py` by `make generate`. Each row is a field of a manifest, the test that compares what it does with",
        "something that was not written here, and the largest difference that was seen there, or that the test allows: absolute and of",
        "weights, unless it says of what. A technique has several rows where it is compared in several ways. Stages are those of ZeRO at",
        "which the trained weights were compared; a dash stands for a function that is compared alone, and knows of no stage.",
        "",
        "| Technique | Field | ZeRO stages | Reference | Largest difference | Test |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(TECHNIQUES, key=lambda row: row.field):
        stages = ", ".join(map(str, row.stages)) or "-"
        columns = (row.name, f"`{row.field}`", stages, row.reference, row.difference, f"`{row.test.removeprefix('tests/')}`")
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parents[1] / PAGE).write_text(page())
