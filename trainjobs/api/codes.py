"""Every error code of the project: its title, the exit status of `gtj`, and the text of its page under docs/errors/.

A code, once published, keeps its meaning. 01xx is caught before anything trains, 02xx while the job runs, 03xx concerns the installation.
"""

from __future__ import annotations

from dataclasses import dataclass

OK, UNEXPECTED, USAGE, INVALID, DOES_NOT_FIT, FAILED, TIMEOUT, NOT_FOUND, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 7, 130


@dataclass(frozen=True)
class Code:
    """`docs` is Markdown: what the code means, and after a blank line what to do about it."""

    title: str
    exit_code: int
    docs: str


def _page(meaning: str, *remedies: str) -> str:
    return meaning + "\n\n" + "\n".join(f"- {remedy}" for remedy in remedies)


CODES: dict[str, Code] = {
    "GTJ0101": Code(
        "unknown field",
        INVALID,
        _page(
            "The manifest has a field that no job has, or has it in the wrong place. Nothing is ignored silently: a misspelt "
            "learning rate would otherwise train with the default one.",
            "Take the name after `did you mean`; names are camelCase (`learningRate`, not `learning_rate`).",
            "If the message names another place, move the field there.",
            "`docs/reference/job.md` lists every field; `gtj schema -o gentrain.schema.json` lets editors complete them.",
        ),
    ),
    "GTJ0102": Code(
        "value not allowed",
        INVALID,
        _page(
            "The field exists, and its value is not among the allowed ones: another word, a number out of range, a name in the wrong form.",
            "The message lists what is allowed.",
            "Plain `yes`, `no`, `on`, `off`, `y` and `n` are booleans in YAML; put quotes around them where text is meant.",
        ),
    ),
    "GTJ0103": Code(
        "batch does not divide",
        INVALID,
        _page(
            "`training.batch.global` is the number of samples of one optimizer step over all workers, and stays the same "
            "whatever their number. It must divide by the number of workers, by both ends of an elastic range, and by workers "
            "times `compute.gpusPerWorker` times `batch.micro`.",
            "Take one of the sizes that the message lists.",
            "Or change `compute.workers`, or leave `batch.micro` out. An elastic range may begin and end at any number of workers that "
            "divides the batch; between them only such numbers are used.",
            "With `minibatchDeviation` a micro-batch is also a multiple of its `group`, which lies within one; an elastic group needs a "
            "`batch.micro` for that.",
        ),
    ),
    "GTJ0104": Code(
        "technique not possible with the ZeRO stage",
        INVALID,
        _page(
            "ZeRO stage 3 splits the weights over the workers and gathers them layer by layer during each backward pass. The gradient "
            "penalty of a Wasserstein GAN, and R1, differentiate a gradient, which needs the weights a second time, when they are gone; "
            "orthogonal regularisation multiplies whole weights, of which there are empty shards; and two networks that take turns "
            "would gather each other's weights at every step. GANs therefore train at stages 0 to 2. Muon makes whole matrices "
            "orthogonal, which from stage 1 on no worker has: stage 0 only. Compiled blocks (`training.compile`) need their weights "
            "whole: stages 0 to 2. And from stage 1 on `precision: fp16` needs a device that computes with fp16 weights, which most "
            "CPUs do not.",
            "Set `deepspeed.stage` to one that the message names, or auto.",
        ),
    ),
    "GTJ0105": Code(
        "wrong type, missing field or malformed YAML",
        INVALID,
        _page(
            "The file is no YAML, a key appears twice, a required field is missing, or a value has the wrong type: text where "
            "a number belongs, nothing where a mapping belongs.",
            "The caret shows the place. Indent with spaces; put quotes around text that holds `: ` or ` #`.",
            "`key:` with nothing behind it means null, not the defaults: delete the line or write `key: {}`.",
            "Scalars are read as `kubectl` reads them: `1e-4` is a number, `1:30` is text, a whole number may be written `5e4`.",
        ),
    ),
    "GTJ0106": Code(
        "not exactly one family",
        INVALID,
        _page(
            "`spec` holds exactly one of `gan`, `vae`, `diffusion`, `language` and `custom`: it says what is trained.",
            "Add one (`vae: {}` takes every default), or take the others out; several models are several manifests.",
        ),
    ),
    "GTJ0107": Code(
        "URI not usable",
        INVALID,
        _page(
            "URIs in a manifest carry no user, password, query, fragment, white space or `..`, and a place for checkpoints is "
            "never a bucket's root, because old checkpoints below it are deleted. Data is read from `file://`, `s3://`, `gs://`, `az://`, "
            "`hf://` and `builtin:`; a pattern whose braces name more than 100,000 objects, and a URI whose store's packages are not "
            "installed, are refused with this code too; the message says which.",
            "`file:` URIs have three slashes and an absolute path: `file:///data/faces`. What a URI cannot hold is written as an escape: "
            "`%20` for a space, `%23` for `#`, `%3F` for `?`, `%25` for `%`. Azure's name the account first: "
            "`az://account/container/folder`.",
            "`pip install '.[cloud]'` in a clone of the repository brings what `s3://`, `gs://` and `az://` need.",
            "Credentials come from the environment, a service account or `pod.env` with `secretKeyRef`.",
        ),
    ),
    "GTJ0108": Code(
        "parts of the manifest do not go together",
        INVALID,
        _page(
            "Each field is fine, and together they make no job: a language model on images, `dcgan` on points, heads that do "
            "not divide `hidden`, batch normalisation in a critic with gradient penalty, or a field that has no effect beside "
            "the others. Or a worker and a ComputeProfile: more GPUs than one of its nodes has.",
            "The message names both sides; change either.",
            "A field without effect is refused rather than ignored, because whoever wrote it expects something of it.",
        ),
    ),
    "GTJ0111": Code(
        "secret, profile or service account missing",
        NOT_FOUND,
        _page(
            "The job names an object that the cluster does not have, in the job's namespace (ComputeProfiles have none).",
            "Create it: the job goes on by itself.",
            "Compare the name with `kubectl get secrets,serviceaccounts` and `kubectl get computeprofiles`.",
        ),
    ),
    "GTJ0109": Code(
        "base model not usable",
        USAGE,
        _page(
            "`language.base` is there, and cannot be trained: it is no causal language model of transformers, its weights are not in the "
            "format safetensors, some of them are missing, its class would come from code that lies beside it, or its tokenizer cannot be "
            "read. Or `diffusion.latents.autoencoder` is no AutoencoderKL of diffusers, or its weights are not in that format. Or "
            "`diffusion.pretrained` is none of the pipelines of diffusers that are known here, has a part of another class, or a scheduler "
            "that says not how it was trained. Code of others is never run, and a pickled file can hold some. Or the hub shows its files "
            "to nobody whom its owner did not give access.",
            "Save the model and its tokenizer again with transformers (`save_pretrained`), which writes safetensors and `tokenizer.json`; "
            "a pipeline with diffusers (`pipeline.save_pretrained`).",
            "An adapter that does not know the layers of this model: take `lora`, which does.",
        ),
    ),
    "GTJ0112": Code(
        "bucket refused the probe",
        NOT_FOUND,
        _page(
            "Before anything trains, a small object is written, read and deleted where the checkpoints will go, and created a "
            "second time to see that the store refuses to overwrite. One of these failed; the message says which, and as "
            "whom.",
            "Give the identity in the message read, write, list and delete on the prefix.",
            "Of data: a bucket refused to list or to read it. Give that identity the right that the message names, to list and to read; "
            "data needs no other.",
            "Of a region: `AWS_DEFAULT_REGION` is no name of a region, or the bucket is in another one to which the store leads nobody. "
            "Name the bucket's region. A bucket elsewhere that is reached all the same is no error: the preflight says where it is.",
            "A store that ignores `If-None-Match` on writes cannot keep checkpoints safe: choose another.",
        ),
    ),
    "GTJ0113": Code(
        "dataset missing, empty or of another format",
        NOT_FOUND,
        _page(
            "The data source was looked at before training: it is not there, holds nothing usable, holds something else than "
            "the model learns from, its pictures are on no known scale or all of one value, or its text is shorter than one sequence.",
            "The message says what was found instead. Images: PNG, JPEG and the like; text: `.txt` or JSONL with `data.text.field`.",
            "On a cluster, the path is one inside the pods: mount a volume, or use a bucket.",
            "A short text needs a smaller `language.network.contextLength`.",
        ),
    ),
    "GTJ0114": Code(
        "run folder not writable",
        NOT_FOUND,
        _page(
            "The folder that keeps the run, its log and its checkpoints, or a file that was asked for, cannot be written; or the data's "
            "cache: its disk is full, or `data.cache` is less than what is read at once, or than the tokens of the text.",
            "Choose another with `--run-dir` (or `-o`), mend its permissions, free space on its disk, or raise `data.cache`.",
        ),
    ),
    "GTJ0115": Code(
        "run folder belongs to another manifest",
        USAGE,
        _page(
            "The folder holds a run whose mathematics differ from this manifest's: another family, data, seed, batch, "
            "precision or optimizer. Continuing it would mix two trainings. Steps, workers, ZeRO stage and intervals may "
            "change.",
            "Choose another folder with `--run-dir` or another `metadata.name`.",
            "`--fresh` starts again and keeps the earlier run beside it.",
        ),
    ),
    "GTJ0116": Code(
        "more workers than cores",
        DOES_NOT_FIT,
        _page(
            "Each worker keeps one core busy. More workers than cores only take turns, and slow each other down.",
            "`gtj run --workers N` with the number in the message, or a cluster.",
        ),
    ),
    "GTJ0117": Code(
        "run folder in use by another process",
        USAGE,
        _page(
            "Another `gtj run`, or a driver that is still saving, holds the folder's lock.",
            "Watch that run with `gtj status`, wait for it, or train into another folder.",
        ),
    ),
    "GTJ0118": Code(
        "run or checkpoint not found",
        NOT_FOUND,
        _page(
            "There is no such file, run folder or checkpoint; or the model of `language.base` or `diffusion.pretrained` does not lie where "
            "it was looked for.",
            "`gtj ls` lists runs, `gtj checkpoints ls` lists a run's checkpoints. Old ones are deleted by `checkpoints.keep`.",
        ),
    ),
    "GTJ0119": Code(
        "a job of that name exists with another spec",
        USAGE,
        _page(
            "The namespace has a job of this name, and the manifest asks for something else. Submitting the same manifest twice is fine; "
            "another one would not replace what is already trained.",
            "Submit it under another `metadata.name`, or remove the old job with `gtj rm`; its checkpoints stay.",
            "What may change under a running job (`compute.workers`, `recovery`, `budget`, `ttlSecondsAfterFinished`) changes with "
            "`kubectl apply`.",
        ),
    ),
    "GTJ0120": Code(
        "the job has ended",
        USAGE,
        _page(
            "A job that has ended stays as it is: it cannot be resumed.",
            "Submit it under another `metadata.name`, with `checkpoints.resumeFrom` set to the checkpoint to go on from; `gtj "
            "status` names it.",
        ),
    ),
    "GTJ0121": Code(
        "GPUs asked for and not there",
        DOES_NOT_FIT,
        _page(
            "`compute.gpusPerWorker` asks for GPUs that this machine, or a worker's pod, does not have, or that its torch cannot use: "
            "a build for CPU, or a driver that is too old. Training would be many times slower without a word.",
            "`gtj doctor` lists the GPUs of this machine, and the message says which build of torch there is. On a cluster look at the "
            "image (a build of torch with CUDA) and at the node's driver.",
            "Fewer `compute.workers` or `compute.gpusPerWorker`; `gpusPerWorker: 0` trains on CPU.",
        ),
    ),
    "GTJ0123": Code(
        "note: the warm-up is longer than the run",
        OK,
        _page(
            "`training.schedule.warmupSteps` is not below `training.steps`. The learning rate is still rising when the run ends: it sees "
            "its peak at the last step or never, and nothing of the cosine or linear decay that follows the warm-up.",
            "For a short trial (`gtj run --steps 20`) it does no harm.",
            "Otherwise lower `warmupSteps` to a tenth of the run or less, or train for more steps.",
        ),
    ),
    "GTJ0124": Code(
        "note: the moving average reaches back further than the run",
        OK,
        _page(
            "An average with a decay of d is of about the last 1 / (1 - d) steps: 0.9999 is of 10,000. A shorter run never gets there. "
            "With `training.ema.warmup`, the default, the decay grows with the run, (1 + t) / (10 + t) after step t, and the average is of "
            "about its last tenth. Without it most of the average is still the random weights that the run began with, and samples are "
            "grey.",
            "Take the decay that the message names, or `halfLife`: samples after which weights count half.",
            "Leave `warmup` on.",
        ),
    ),
    "GTJ0125": Code(
        "note: the noise schedule is cut",
        OK,
        _page(
            "The linear noise schedule (Ho et al., 2020) is made for 1000 timesteps. With T of them each beta is 1000/T times as large, so "
            "that the last step is as noisy; with 20 or fewer the last betas would be 1 and more, and are cut at 0.999. Such a step "
            "leaves next to nothing of an image, and so nothing for the steps after it to learn. So it is with scaled-linear from 12 "
            "timesteps down.",
            "Use `process.schedule: cosine`, which is defined for any number.",
            "Or more timesteps: training does not become slower, samples take `sampler.steps` passes whatever their number.",
        ),
    ),
    "GTJ0126": Code(
        "note: fewer sampling steps than asked for",
        OK,
        _page(
            "`diffusion.process.timesteps` is below the default of `diffusion.sampler.steps`. A sampler visits each timestep once at most, "
            "so samples take as many network evaluations as there are timesteps. A number of your own above the timesteps is an error "
            "(GTJ0108).",
            "Write `sampler.steps` with the number of timesteps or fewer, and the note is gone.",
        ),
    ),
    "GTJ0127": Code(
        "note: the run goes on otherwise than it would have",
        OK,
        _page(
            "A run was resumed with something that may change and that changes its numbers, and says so once, as a warning in its line and "
            "its timeline. Either `training.steps` is another and the schedule of the learning rate ends elsewhere: a cosine run that had "
            "finished at a rate near 0 leaps to the rate of its middle. Or the batch is cut into other micro-batches (another "
            "`training.batch.micro` or number of workers), and a network has batch norm, spectral norm, or a recurrent network's dropout, "
            "which depend on it, or precision is fp16 from ZeRO stage 1 on. Or the checkpoint is of a version whose moving averages had no "
            "warm-up, and the average has one now.",
            "Where that is what you want, do nothing.",
            "For a rate that does not leap, start a new job from the weights with `training.initialWeights` and a schedule of its own.",
            "For the same numbers, resume with the same `training.batch.micro` and number of workers.",
        ),
    ),
    "GTJ0129": Code(
        "reserved mount path or variable",
        INVALID,
        _page(
            "`pod.volumes` mounts a claim where the operator or the system has something already (`/tmp`, `/dev/shm`, `/etc/gentrain`, "
            "`/proc`, `/sys`, or a folder that holds them), or two claims at one path; or `pod.env` sets a variable that the operator, "
            "KubeRay or Ray sets: `HOME`, `GENTRAIN_*`, `KUBERAY_*`, `RAY_AUTH_*`, `RAY_ADDRESS` and the others that say where Ray is.",
            "Mount the claim at a path of its own, such as `/data`; below `/tmp` is possible.",
            "Take the variable out: what the trainer needs of these, the operator sets. Other `RAY_` variables are yours.",
        ),
    ),
    "GTJ0130": Code(
        "a device that torch does not train on",
        INVALID,
        _page(
            "The profile's `accelerator.resource` is a device for which the trainer has no torch: a TPU, Trainium or Inferentia, Gaudi, an "
            "FPGA. Pods would get it, and training would run on the CPU beside it, or fail in its first second.",
            "Name a pool of GPUs (`nvidia.com/gpu`), or write `accelerator.perNode: 0` for a pool of CPUs.",
        ),
    ),
    "GTJ0131": Code(
        "the profile contradicts itself",
        INVALID,
        _page(
            "A ComputeProfile says things that no node pool of that cloud is: a pool of another provider, spot or reserved nodes where "
            "there are none, a fabric that its nodes lack, more grace than a reclaimed node gives; or it leaves out what its pool or "
            "fabric is found by.",
            "The message says what the pool has. `docs/how-to/profiles.md` has the table.",
        ),
    ),
    "GTJ0132": Code(
        "a budget without a price",
        DOES_NOT_FIT,
        _page(
            "The job has a `budget`, and the profile that it would run on has no `price` and does not insist on nodes whose list price is "
            "known: what it costs is unknown, and the budget would never be used up.",
            "Write `price.usdPerNodeHour` into the ComputeProfile; the job goes on by itself.",
            "Or let the list price count: `node.instanceType`, and a `selector` with `topology.kubernetes.io/region`, of a type and region "
            "that the trainer's catalogue has (`docs/reference/nodes.md`; of AWS us-east-1, of Google Cloud us-central1).",
            "Or take `budget` out. `activeDeadlineSeconds` limits time without a price.",
        ),
    ),
    "GTJ0133": Code(
        "no nodes that the job fits",
        DOES_NOT_FIT,
        _page(
            "`gtj plan` found no ZeRO stage, micro-batch and number of workers at which a rank's memory is enough, on any of the nodes "
            "that it was asked about. The message has the nearest way, and what it lacks.",
            "More `compute.workers`: from stage 1 on they share what the optimizer keeps, at stage 3 the weights too.",
            "Less for a rank: `training.gradientCheckpointing`, `precision: bf16`, a smaller `training.batch.micro`, `language.adapter`.",
            "GPUs with more memory: `gtj plan --gpu h200-141gb`.",
        ),
    ),
    "GTJ0134": Code(
        "a tracker that is not installed",
        INVALID,
        _page(
            "`training.tracking` names a tracker whose package is not there where the job trains. Nothing is trained: whoever names a "
            "tracker wants to find the run in it.",
            "Install it: `pip install 'gentrain[wandb]'`, `'gentrain[mlflow]'` or `'gentrain[trackio]'`; on a cluster, use an image that "
            "has it.",
            "Or take `training.tracking` out: TensorBoard's files, `metrics.jsonl` and `report.html` are written in any case.",
        ),
    ),
    "GTJ0135": Code(
        "nothing can be compiled there",
        USAGE,
        _page(
            "`training.compile` has torch write programs for the blocks of the networks, and before the first step a small one was tried "
            "where the job trains: it could not be built or run. The message ends with the reason. On a CPU torch asks for `g++` (or the "
            "compiler that `CXX` names), on a GPU for Triton, which brings its own compiler and asks for `gcc` besides; either writes to "
            "`TORCHINDUCTOR_CACHE_DIR`, by default a folder in `/tmp`, and loads what it wrote from there.",
            "Install `g++`; the project's trainer image has it.",
            "Where `/tmp` is mounted without the right to execute, set `TORCHINDUCTOR_CACHE_DIR` to a folder that has it.",
            "Or take `training.compile` out: the weights are the same but for rounding.",
        ),
    ),
    "GTJ0201": Code(
        "cloud quota or capacity exhausted",
        FAILED,
        _page(
            "The cloud has no such machines to give: the account's quota is used up, the zone is sold out, or the limit of a node pool is "
            "reached. On a cluster the message has the words of the node autoscaler, and the scheduler's.",
            "Name further profiles in `compute.profiles`: they are tried in order, the next one after a minute.",
            "Ask for quota, have the node pool's limit raised, or use another zone or machine type.",
        ),
    ),
    "GTJ0202": Code(
        "pods cannot be scheduled",
        FAILED,
        _page(
            "No node of the cluster can take a pod of the job, and no autoscaler will make one. The message says which "
            "constraint is not met and what the cluster has.",
            "Compare the ComputeProfile's selector, tolerations and resources with the node pool.",
            "A machine type of which nothing is left in any zone reads like this, too, for a job that comes when Karpenter has already "
            "found that out.",
        ),
    ),
    "GTJ0203": Code(
        "namespace quota exceeded",
        FAILED,
        _page(
            "A ResourceQuota of the namespace refused the job's pods.",
            "Wait for other jobs, ask for fewer workers, or have the quota raised: `kubectl describe resourcequota`.",
        ),
    ),
    "GTJ0204": Code(
        "image cannot be pulled",
        FAILED,
        _page(
            "A node could not fetch the trainer's image: no such tag, no permission, or no route to the registry.",
            "Check `pod.image` and `pod.imagePullSecrets`.",
            "An image that can be pulled and has no Python in it is none of a trainer: name one that holds Gentrain.",
        ),
    ),
    "GTJ0205": Code(
        "out of host memory",
        FAILED,
        _page(
            "The kernel ended a process because its container used more memory than its limit.",
            "Use a profile with more memory per node, fewer workers per node, or no offload to host memory.",
        ),
    ),
    "GTJ0206": Code(
        "out of device memory",
        FAILED,
        _page(
            "A GPU could not hold weights, optimizer states and activations together.",
            "Lower `training.batch.micro`: the global batch, and so the result, stays the same.",
            "Raise `deepspeed.stage`, use `precision: bf16`, or more workers.",
        ),
    ),
    "GTJ0207": Code(
        "non-finite loss",
        FAILED,
        _page(
            "A loss became NaN or infinite, or, with `recovery.onLossSpike: rollback`, rose far above its moving average. With "
            "`recovery.onNonFiniteLoss: rollback` the job went back to its last checkpoint, left the batches out and failed again, "
            "`recovery.maxRollbacks` times; with `halt` it stopped at once. The message names the loss and the step; earlier "
            "checkpoints are intact. As a warning it tells of a spike that changed nothing.",
            "Lower the learning rate, add `schedule.warmupSteps`, or set `gradientClipping: 1.0`.",
            "With bf16, try fp32 to see whether precision is the cause.",
            "With fp16 a step without an update is how the loss scale finds its size, and no error; this is one at a scale of 1, where "
            "nothing is left to be made smaller. Try bf16.",
            "If the loss of this model jumps by nature, raise `recovery.lossSpike.zScore`, or use `onLossSpike: warn`.",
        ),
    ),
    "GTJ0208": Code(
        "checkpoint of another model or optimizer",
        FAILED,
        _page(
            "The checkpoint has other tensors than the manifest's model: the message names the first that differ, with their "
            "shapes. Or it has the state of another optimizer, or no moving average. The number of workers and the ZeRO stage "
            "may differ: every rank takes the elements that are its own. The weights of `training.initialWeights` must be those of the "
            "manifest's model just so. Or `language.base` or `diffusion.pretrained` is another than the one that the checkpoint's weights "
            "belong to, or has more tokens than its embedding has rows; or `diffusion.latents.autoencoder` another one than the "
            "checkpoint's latents are of, or than those of `training.distillation.teacher`; or conversations are written by another chat "
            "template (`language.template`) than they were.",
            "Resume with the manifest that wrote it.",
            "`checkpoints.allowOptimizerReset: true` takes the weights and begins optimizer and moving average anew.",
            "Or start anew: `checkpoints.resumeFrom: none`, in another folder.",
        ),
    ),
    "GTJ0209": Code(
        "checkpoint corrupt, none left",
        FAILED,
        _page(
            "Every file of a checkpoint is compared with its digest before it is used. This one differs, is set aside in "
            "quarantine, and no earlier checkpoint is whole. When an earlier one is, the job resumes from it and only a note "
            "remains.",
            "Look at the disk: a digest that differs means that bytes changed after they were written and read back.",
            "`gtj checkpoints verify` checks every checkpoint of a run.",
            "Nothing is deleted, and nothing begins again at step 0 by itself: `gtj run --fresh` does, and keeps the old run beside it.",
        ),
    ),
    "GTJ0210": Code(
        "training stalled",
        FAILED,
        _page(
            "No step was finished for `recovery.stallTimeout`. The message says which ranks wait and which one is missing. An evaluation "
            "is no stall, however long it takes, while the networks pass their samples.",
            "Look at the log of the missing rank: `gtj logs NAME`.",
            "If steps are honestly that slow, raise `recovery.stallTimeout`.",
        ),
    ),
    "GTJ0211": Code(
        "checkpoint cannot be written",
        FAILED,
        _page(
            "The disk is full, or the store is away or refuses writes. The last checkpoint that was committed is intact. Amid a "
            "run that is no end: training goes on, another save is tried every half a minute, and the status says why the last "
            "one failed. The run ends with this only when its last checkpoint, or the one before a stop, cannot be written.",
            "Free space or mend permissions; if the run has ended, run again: the job continues from that checkpoint.",
            "`checkpoints.keep.last` bounds how many are kept.",
        ),
    ),
    "GTJ0212": Code(
        "budget or deadline reached",
        FAILED,
        _page(
            "The job cost as much as `budget.maxUSD`, less what its last checkpoint may cost, or ran as long as "
            "`activeDeadlineSeconds`, over all attempts. A budget suspends the job after a checkpoint; the "
            "deadline ends it for good, after a checkpoint.",
            "Raise `budget.maxUSD`, and the job goes on by itself from that checkpoint.",
            "After a deadline, submit the job under another name with `checkpoints.resumeFrom`: nothing is lost.",
        ),
    ),
    "GTJ0213": Code(
        "worker or driver lost, retries used up",
        FAILED,
        _page(
            "A process was killed, or its node went away, again and again without a new checkpoint in between. A single loss "
            "is no failure: the job resumes by itself.",
            "`gtj logs NAME` shows each process's last words. Signal 9 without a word is usually the kernel, out of memory.",
            "Run again to continue from the last checkpoint.",
        ),
    ),
    "GTJ0214": Code(
        "the training code raised an error",
        FAILED,
        _page(
            "An exception that is none of the above, in the trainer or in the code of a `custom` objective. `failure.json` in "
            "the run folder holds the end of the log.",
            "`gtj run --workers 1 --no-ray` runs everything in one process, where a debugger can look at it.",
        ),
    ),
    "GTJ0215": Code(
        "not reached in time",
        TIMEOUT,
        _page(
            "`gtj wait --timeout` gave up. The job itself goes on.",
            "`gtj explain NAME` says what it waits for.",
            "Wait again, for longer.",
        ),
    ),
    "GTJ0216": Code(
        "data changed under a run",
        INVALID,
        _page(
            "The run goes on from a checkpoint that was trained on other data: files were added, removed, or have another size or other "
            "contents. Every checkpoint carries the names and sizes of its data, and digests of the contents up to 256 MB and 100,000 "
            "files; beyond, a file that changed and is as large as before is not noticed. Its tokenizer, and the rule by which samples are "
            "held out, stay what they were.",
            "Put the data back. The message names the first files that differ.",
            "If the data was meant to grow: `checkpoints.allowDataChange: true`, and the report marks the step.",
            "If it is another experiment: `gtj run --fresh`, or another name.",
        ),
    ),
    "GTJ0217": Code(
        "machines failed again and again without progress",
        FAILED,
        _page(
            "Twenty attempts in a row ended because of their machines (lost, taken back, or never there), and no new checkpoint was made "
            "between them. Such restarts count against nothing, but without progress they only cost.",
            "The message names the last cause; mend that, or name another profile in `compute.profiles`.",
            "Save more often where machines are taken back before the first one; nothing saved is lost.",
        ),
    ),
    "GTJ0218": Code(
        "gave its pods back",
        FAILED,
        _page(
            "Some pods of the attempt had a machine and the others fitted nowhere, while an older job waited in the same way (five minutes "
            "after the first pod had its machine), or for half an hour without one more. Two jobs that each hold a part would wait for "
            "each other for ever, so the younger lets go. Such an attempt costs nothing, counts against nothing, and the next follows.",
            "Wait: the job starts when an older one has ended or the cluster has grown. `gtj explain NAME` says when it tries again.",
            "If it can never fit, ask for fewer workers, a smaller profile, or another one in `compute.profiles`.",
            "Where many jobs share a cluster, admit them whole: Kueue and `compute.queue`.",
        ),
    ),
    "GTJ0221": Code(
        "the reward function failed",
        FAILED,
        _page(
            "A function of `language.grpo.rewards` or `language.ppo.rewards`, or `diffusion.ddpo.reward`, raised an error, returned "
            "something that is no list of numbers, one for each completion or image (or None, to abstain), returned NaN, abstained of all "
            "completions or images of a step, or took longer than `timeLimit`. The message names the function, the step, a "
            "prompt and its completion, and the lines of the function that raised.",
            "Mend the function; call it by hand with the prompt and the completion of the message.",
            "A function that waits for something else, a server for one, may need a larger `timeLimit`.",
        ),
    ),
    "GTJ0222": Code(
        "the tracker does not have all of the run",
        UNEXPECTED,
        _page(
            "The tracker of `training.tracking` cannot be reached, refuses, or is slower than the run. The training goes on, and no step "
            "waits: rows wait in a queue of a thousand, and what finds no room is dropped. It is told as a warning, and at the end with "
            "the number of rows that are missing. `metrics.jsonl`, TensorBoard's files and `report.html` have all of them.",
            "See that its address and key are in the environment (`pod.env` with `secretKeyRef` on a cluster), and that the pods may reach "
            "it.",
            "Its own offline mode (`WANDB_MODE=offline`) needs no network.",
        ),
    ),
    "GTJ0219": Code(
        "the data does not answer",
        FAILED,
        _page(
            "The bucket or the hub that holds the data gave no answer, or answered `later`, for as long as it is waited for (ten minutes "
            "amid a run, twenty seconds before one). Training went on with what was fetched already, then waited, and the run ended where "
            "it stood: no sample is lost or seen twice when it goes on.",
            "Look whether the bucket can be reached from where the job runs; the message has the store's own last words.",
            "Run again: the job continues from its last checkpoint. On a cluster it is retried by itself (`recovery.maxRetries`).",
        ),
    ),
    "GTJ0220": Code(
        "training in trouble",
        FAILED,
        _page(
            "A warning while a model trains; the run goes on, unless `recovery.onCollapse` is `halt` and a GAN's generator has collapsed. "
            "**Collapse**: generated samples differ from each other by less than a quarter of what held-out data differ by "
            "(`samples/spread`), or fewer than half of the modes are left, at three evaluations running. **Oscillation**: samples "
            "of the same latents move further between evaluations than they differ from each other (`samples/moved`), and come no "
            "nearer to the data (FID where it is measured, else KID, else `samples/distance`), three times running. "
            "**Vanishing gradient**: the norm of the generator's gradient falls below a thousandth of its running median while the "
            "discriminator is right on 99 %. "
            "**Augmentation**: the strength of `gan.augment.type: ada` is above 0.8. **Nothing is learned** from rewards: all completions "
            "of each prompt were worth the same, or every completion was cut off, in 20 steps running.",
            "Collapse: `regularization.r1`, `discriminator.minibatchDeviation`, `loss.type: wgan-gp`, or a lower rate of the generator. "
            "Go on from a checkpoint that was good: `checkpoints.resumeFrom`.",
            "Oscillation: lower both rates, add `r1` or a gradient penalty, and look at the average of the weights (`training.ema`).",
            "Vanishing gradient: any loss but `minimax`; a weaker discriminator, by its rate, `spectralNorm` or `r1`.",
            "Augmentation above 0.8: more data, or fewer kinds of augmentation in `pipeline`.",
            "Completions of equal worth: a finer reward, other prompts, a higher temperature, `grpo.dynamicSampling`.",
            "Completions cut off: a larger `maxCompletion`, or a model that was fine-tuned to end its answers.",
        ),
    ),
    "GTJ0301": Code(
        "CRD and operator of different versions",
        UNEXPECTED,
        _page(
            "The custom resource definition in the cluster is older or newer than the operator that reads it. The operator compares the "
            "definition that the server serves with its own when it starts and every ten minutes; it names what is missing in its log, on "
            "`/readyz` and in the message of each job's condition `Accepted`, and goes on without those fields.",
            "Apply the definitions of the chart's version: `helm upgrade` does not touch CRDs, `kubectl apply --server-side -f` does.",
        ),
    ),
    "GTJ0302": Code(
        "the cluster cannot be reached",
        NOT_FOUND,
        _page(
            "There is no kubeconfig, it does not name the context, the client is not installed, or the server does not answer. The message "
            "names context, server and user. Of `gtj prepare --ray` it is the Ray cluster, and the message names its address.",
            "`kubectl config get-contexts` lists contexts; `--context` and `--kubeconfig` choose another.",
            "`kubectl version` asks the same server: when that fails too, look at network, VPN and the cluster itself.",
        ),
    ),
    "GTJ0303": Code(
        "the cluster does not allow it",
        NOT_FOUND,
        _page(
            "The credentials are not accepted, the user lacks a permission, the namespace does not exist, or a policy of the "
            "cluster refuses the job. The message says which, and as whom.",
            "A fabric such as RDMA needs pods that stricter Pod Security levels refuse: the message names the level, the profile and "
            "the label of the namespace. Nothing is started before they agree.",
            "`kubectl auth can-i --list -n NAMESPACE` shows what is allowed.",
            "The chart brings the roles `gentrain-viewer` and `gentrain-editor`; whoever administers the namespace binds them.",
        ),
    ),
    "GTJ0304": Code(
        "Gentrain is not installed in the cluster",
        NOT_FOUND,
        _page(
            "The server does not know the kind `GenerativeTrainingJob`.",
            "Look at the context in the message: is it the cluster you mean?",
            "Install it: `helm install gentrain charts/gentrain`.",
        ),
    ),
    "GTJ0306": Code(
        "note: the preflight ended without a verdict",
        OK,
        _page(
            "Before a job's first attempt a small pod looks whether it can run: image, account, store, data. This one ended without saying "
            "so: its image holds a trainer of before that does not know how to look, its node went away, or the operator may not create "
            "pods. That proves nothing against the job, so it goes on as if nobody had looked; what is wrong is then found by its first "
            "attempt, which holds its machines meanwhile.",
            "The message ends with the last line that the pod wrote.",
            "Use a trainer image of the operator's version: `pod.image`, the profile's image, or the chart's.",
            "Of a missing permission: `helm upgrade` the chart; its roles belong to the operator's version.",
            "`preflight: false` in the job's spec, or `preflight.enabled=false` of the chart, begins without one.",
        ),
    ),
    "GTJ0307": Code(
        "a watched namespace is refused",
        UNEXPECTED,
        _page(
            "The operator is to watch a namespace, and the API server does not let it list the jobs or RayJobs there: the namespace is "
            "gone, or its Role or RoleBinding is. The other namespaces go on. Jobs of this one are left as they are, and their pods go on, "
            "unwatched, until the server answers again; within half a minute of that they are taken up by themselves. It stands in the "
            "operator's log once, and for as long as it lasts in the text of `/readyz` and in the metric `gentrain_namespace_watched`.",
            "Put the Role and the RoleBinding back: `helm upgrade` with the same `watchNamespaces` does.",
            "Or take the namespace out of `watchNamespaces`.",
            "`kubectl auth can-i list rayjobs.ray.io -n NAMESPACE --as system:serviceaccount:gentrain-system:gentrain` tells which it is.",
        ),
    ),
    "GTJ0305": Code(
        "the API server refuses what the operator makes for the job",
        NOT_FOUND,
        _page(
            "A quota of the namespace, an admission policy or webhook, a missing permission of the operator or a rule of the server "
            "keeps the job's ConfigMap or RayJob from being created, or its RayJob from being suspended or let go. The message is the "
            "server's own. The operator tries again, after ten seconds first and every five minutes at last, "
            "so the job goes on by itself once the cause is gone.",
            "Exceeded quota: `kubectl describe resourcequota -n NAMESPACE`; delete finished jobs (`gtj rm`), or have the quota raised.",
            "A policy: give the job what it wants, a label for one, or ask who made it.",
            "A permission: `helm upgrade` the chart; its roles belong to the operator's version.",
        ),
    ),
}


def page(code: str) -> str:
    """The Markdown page of a code."""
    entry = CODES[code]
    note = "" if code >= "GTJ0200" else " It is caught before anything trains."
    status = "`gtj` says it and goes on." if entry.exit_code == OK else f"`gtj` exits with status {entry.exit_code}.{note}"
    return f"# {code}: {entry.title}\n\n{status}\n\n{entry.docs}\n"


def index() -> str:
    """The Markdown table of all codes."""
    rows = [f"| [{code}]({code}.md) | {entry.title} | {entry.exit_code} |" for code, entry in CODES.items()]
    head = [
        "# Errors",
        "",
        "Every message carries a code with a page of its own.",
        "",
        "| Code | What | Exit status |",
        "| --- | --- | --- |",
    ]
    return "\n".join(head + rows) + "\n"
