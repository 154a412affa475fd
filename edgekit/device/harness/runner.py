"""Measures model files on a board: one file, Python 3.7 or later, numpy and one runtime, nothing of edgekit.

    python3 runner.py JOB      prints one JSON object as its last line

JOB: {"mode", "runtime", "files": {name: path}, "threads", "delegate", "seed", ...}
with runtime "litert", "onnxruntime" or "openvino", for all files or for one, where "files" has {"path",
"runtime", "delegate", "properties"} in place of a path; properties: of OpenVINO's compile_model, instead of
ours. As mode
    check      versions of Python, numpy and the runtime; with "delegate", whether it can be had
    measure    raw nanoseconds of every file in turns: "samples", "seconds", "max_seconds", "warmup",
               "warmup_seconds", "process" (which of several: each has an order of its own); with "starts",
               when each sample began
    copies     {"archive": X.zip, "units": {name: copies}, "rounds", "order"}: what further copies of a part
               of a network take, from NAME.1 and NAME.n of the archive, which hold it once and that often
    memory     peak memory of one file in this fresh process, above what the runtime itself takes
    outputs    {"inputs": X.npz, "outputs": Y.npz}: arrays "0", "1", ... (N, ...) through one file, bit by bit

A runtime is called with its input in place and its output left where it is: what is timed is the network. The
pools of several files share the process, so none of them spins or is pinned to a core.

Files run in a random order, new in every round, and each runs once untimed before its sample: what ran before
it does not decide how much of it lies in the caches. A sample during which the system took the processor away
for others is dropped and taken again; "preempted" says how many were, null where the system does not tell. A
running thread is moved to another core by the same means, so migrations are among them.
"""

# ruff: noqa: B905, RUF012 (Python 3.7 has no zip(strict=) and needs no ClassVar)
from __future__ import annotations

import ctypes
import hashlib
import json
import platform
import random
import struct
import sys
import time
import zipfile

MIN_ROUNDS = 5
REFERENCE_RUNS = 3
TRIES = 3  # of one sample in its round
FEW = 30  # samples: where preemption leaves fewer, a measurement may take PATIENCE times as long
PATIENCE = 4
# sched_getattr and sched_setattr by machine and bits of a pointer
SCHED_ATTR = {("x86_64", 64): (315, 314), ("aarch64", 64): (275, 274), ("riscv64", 64): (275, 274)}
SLICE_NS = 100 * 10**6  # the longest a thread may ask for


class LiteRT:
    """ai_edge_litert, or tflite_runtime where that is what the board has; the same Interpreter."""

    def __init__(self):
        try:
            from ai_edge_litert import interpreter

            self.name = "ai-edge-litert"
        except ImportError:
            from tflite_runtime import interpreter

            self.name = "tflite-runtime"
        self.module = interpreter

    def version(self):
        return version_of(self.name)

    def need(self, delegate):
        """Fail when a delegate that is a library cannot be loaded; XNNPACK shows only with a model."""
        if delegate not in ("xnnpack", "none", "reference"):
            self.module.load_delegate(delegate)

    def open(self, path, threads, delegate, properties):
        options = {"model_content" if isinstance(path, bytes) else "model_path": path, "num_threads": threads}
        kinds = self.module.OpResolverType
        if delegate == "none":
            options["experimental_op_resolver_type"] = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        elif delegate == "reference":  # the same answers on every processor
            options["experimental_op_resolver_type"] = kinds.BUILTIN_REF
        elif delegate != "xnnpack":
            options["experimental_delegates"] = [self.module.load_delegate(delegate)]
        interpreter = self.module.Interpreter(**options)
        interpreter.allocate_tensors()
        return LiteRTModel(interpreter, delegate)


class LiteRTModel:
    def __init__(self, interpreter, delegate):
        self.interpreter = interpreter
        self.run = interpreter.invoke
        self.wanted = delegate
        self.inputs = [(d["dtype"], [int(n) for n in d["shape"]]) for d in interpreter.get_input_details()]
        self._slots = [d["index"] for d in interpreter.get_input_details()]
        self._outputs = [d["index"] for d in interpreter.get_output_details()]

    def set(self, arrays):
        for slot, array in zip(self._slots, arrays):
            self.interpreter.set_tensor(slot, array)

    def get(self):
        return [self.interpreter.get_tensor(index) for index in self._outputs]

    def proof(self):
        """Delegate partitions: nodes that stand for a part of the graph the delegate took."""
        names = [op["op_name"] for op in self.interpreter._get_ops_details()]
        partitions = sum(name == "DELEGATE" or name.startswith("EdgeTpuDelegate") for name in names)
        ran = self.wanted if partitions or self.wanted == "reference" else "none"
        return {"partitions": partitions, "delegate": ran}


class OnnxRuntime:
    PROVIDERS = {
        "cpu": "CPUExecutionProvider",
        "xnnpack": "XnnpackExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
    }

    def __init__(self):
        import onnxruntime

        self.name = "onnxruntime"
        self.module = onnxruntime

    def version(self):
        return self.module.__version__

    def need(self, delegate):
        """Fail when this onnxruntime was built without a provider."""
        if self.PROVIDERS[delegate] not in self.module.get_available_providers():
            raise OSError("this onnxruntime has no " + self.PROVIDERS[delegate])

    def open(self, path, threads, delegate, properties):
        options = self.module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.need(delegate)
        provider = self.PROVIDERS[delegate]
        chosen = [provider] if delegate == "cpu" else [provider, self.PROVIDERS["cpu"]]
        session = self.module.InferenceSession(path, options, providers=chosen)
        return OnnxModel(session, self.PROVIDERS, delegate in ("cpu", "xnnpack"))


class OnnxModel:
    DTYPES = {"float": "float32", "float16": "float16", "double": "float64"}

    def __init__(self, session, providers, in_place):
        """in_place: tensors of the processor stay where they are; others are copied with every run."""
        self.session = session
        self._binding = session.io_binding() if in_place else None
        self._names = [i.name for i in session.get_inputs()]
        self.inputs = []
        for i in session.get_inputs():
            kind = i.type[len("tensor(") : -1]
            shape = [n if isinstance(n, int) else 1 for n in i.shape]
            self.inputs.append((self.DTYPES.get(kind, kind), shape))
        self._feed = {}
        self._results = []
        self._words = {provider: word for word, provider in providers.items()}

    def set(self, arrays):
        self._feed = dict(zip(self._names, arrays))
        if self._binding is not None:
            self._binding.clear_binding_inputs()
            self._binding.clear_binding_outputs()
            for name, array in self._feed.items():
                self._binding.bind_cpu_input(name, array)
            for output in self.session.get_outputs():
                self._binding.bind_output(output.name)

    def run(self):
        if self._binding is not None:
            self.session.run_with_iobinding(self._binding)
        else:
            self._results = self.session.run(None, self._feed)

    def get(self):
        return self._binding.copy_outputs_to_cpu() if self._binding is not None else self._results

    def proof(self):
        """The provider the session really has; how many parts it took is not told."""
        first = self.session.get_providers()[0]
        return {"partitions": None, "delegate": self._words.get(first, first)}


class OpenVino:
    def __init__(self):
        import openvino

        self.name = "openvino"
        self.module = openvino
        self.core = openvino.Core()
        self.devices = self.core.available_devices  # loads the plugins: the runtime's memory, not a model's

    def version(self):
        return self.module.__version__

    def need(self, delegate):
        """Fail when this machine or this openvino has no such device."""
        if delegate not in self.devices:
            raise OSError("this openvino has no " + delegate)

    def open(self, path, threads, delegate, properties):
        """The precision is stated: where the CPU has bfloat16 or float16 it would be the default."""
        self.need(delegate)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        settings.update(properties)
        return OpenVinoModel(self.module, self.core.compile_model(path, delegate, settings))


class OpenVinoModel:
    def __init__(self, module, compiled):
        self.module = module
        self.compiled = compiled
        self.request = compiled.create_infer_request()
        self.inputs = []
        for port in compiled.inputs:
            shape = [1 if n.is_dynamic else n.get_length() for n in port.get_partial_shape()]
            self.inputs.append((port.get_element_type().to_dtype(), shape))

    def set(self, arrays):
        for i, array in enumerate(arrays):
            self.request.set_input_tensor(i, self.module.Tensor(array))

    def run(self):
        self.request.infer(share_outputs=True)

    def get(self):
        return [tensor.data for tensor in self.request.output_tensors]

    def proof(self):
        """The device the compiled model really has; how many parts it took is not told."""
        return {"partitions": None, "delegate": ",".join(self.compiled.get_property("EXECUTION_DEVICES"))}


def version_of(package):
    try:
        from importlib.metadata import version  # Python 3.8
    except ImportError:
        from pkg_resources import get_distribution

        return get_distribution(package).version
    return version(package)


def load(runtime, asked, job):
    """Open a file, fill its inputs with seeded values, time initialisation and the first inference."""
    import numpy as np

    clock = time.perf_counter_ns
    start = clock()
    model = runtime.open(asked["path"], job["threads"], asked["delegate"], asked["properties"])
    init_ns = clock() - start
    rng = np.random.RandomState(job["seed"])
    arrays = []
    for dtype, shape in model.inputs:
        kind = np.dtype(dtype)
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            arrays.append(rng.randint(limits.min, int(limits.max) + 1, shape, dtype=kind))
        else:
            arrays.append(rng.uniform(-1.0, 1.0, shape).astype(kind))
    model.set(arrays)
    start = clock()
    model.run()
    return model, {"init_ns": init_ns, "first_ns": clock() - start}


def goes_on(rounds, kept, elapsed, job, wanted, seconds):
    """kept: undisturbed samples of the file that has fewest."""
    patience = PATIENCE if kept < min(rounds, FEW) else 1
    if rounds >= MIN_ROUNDS and elapsed >= patience * job["max_seconds"]:
        return False
    return kept < wanted or elapsed < seconds


def preemptions():
    """A function that tells how often threads of this process had to make way for others, or None."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return None
    return lambda: getrusage(RUSAGE_SELF).ru_nivcsw  # of all threads: a pool's as well


def ask_for_long_slices():
    """Linux 6.12 lets a thread say how long it runs at a stretch, for the same share of time in all.

    Where others compute too, a network of some milliseconds hardly ever ends within a slice of usual length.
    """
    numbers = SCHED_ATTR.get((platform.machine(), 8 * struct.calcsize("P")))
    if not sys.platform.startswith("linux") or numbers is None:
        return
    form = "IIQiIQQQ"  # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
    space = ctypes.create_string_buffer(struct.calcsize(form))
    call = ctypes.CDLL(None).syscall
    if call(numbers[0], 0, space, len(space), 0) == 0:
        told = list(struct.unpack(form, space.raw))
        if told[1] == 0:  # SCHED_OTHER
            told[0], told[5] = len(space), SLICE_NS
            call(numbers[1], 0, ctypes.create_string_buffer(struct.pack(form, *told), len(space)), 0)


def files_of(job):
    """Name -> what is asked of each file; a path alone takes the job's runtime and delegate."""
    asked = {}
    for name, told in job["files"].items():
        asked[name] = {"runtime": job.get("runtime"), "delegate": job.get("delegate"), "properties": {}}
        asked[name].update(told if isinstance(told, dict) else {"path": told})
    return asked


def measure(runtime, job):
    ask_for_long_slices()  # before a runtime makes threads, which take over what this one has
    clock = time.perf_counter_ns
    files, models = {}, {}
    opened: dict = {job.get("runtime"): runtime}
    for name, asked in files_of(job).items():
        if asked["runtime"] not in opened:
            opened[asked["runtime"]] = RUNTIMES[asked["runtime"]]()
        models[name], files[name] = load(opened[asked["runtime"]], asked, job)
        files[name].update(models[name].proof())
    start, rounds = clock(), 0
    while goes_on(rounds, rounds, (clock() - start) / 1e9, job, job["warmup"], job["warmup_seconds"]):
        for model in models.values():
            model.run()
        rounds += 1
    uptime = seconds_since_boot()
    counted = preemptions()
    begin = clock()
    taken = sample(models, job, counted or (lambda: 0), begin)
    for name, entry in files.items():
        kept, lost = taken[name]
        entry["preempted"] = None if counted is None else len(lost)
        entry["undisturbed"] = len(kept) >= MIN_ROUNDS
        if not entry["undisturbed"]:
            kept = sorted(kept + lost)
        entry["samples_ns"] = [end - start for start, end in kept]
        if job.get("starts"):
            entry["starts_ns"] = [start - begin for start, _ in kept]
    return {"warmup_rounds": rounds, "began_at_s": uptime, "files": files}


def sample(models, job, counted, begin):
    """Name -> the (start, end) of its samples, and of those during which `counted` went up."""
    clock = time.perf_counter_ns
    rng = random.Random("{} {}".format(job["seed"], job.get("process", 0)))
    taken: dict = {name: ([], []) for name in models}
    order = [
        (name, model.run, taken[name][0].append, taken[name][1].append) for name, model in models.items()
    ]
    most = float("inf") if job["seconds"] else job["samples"]  # the others go on without it
    rounds = fewest = 0
    while goes_on(rounds, fewest, (clock() - begin) / 1e9, job, job["samples"], job["seconds"]):
        rng.shuffle(order)
        for name, run, keep, lose in order:
            if len(order) > 1:
                run()
            if len(taken[name][0]) >= most:
                continue
            for _ in range(TRIES):
                before = counted()
                start = clock()
                run()
                end = clock()
                if counted() == before:
                    keep((start, end))
                    break
                lose((start, end))
        rounds += 1
        fewest = min(len(kept) for kept, _ in taken.values())
    return taken


def copies(runtime, job):
    """Two files in turns, pair after pair: neighbours decide how warm weights are."""
    ask_for_long_slices()
    order = sorted(job["units"])
    random.Random(job["order"]).shuffle(order)
    units = {}
    with zipfile.ZipFile(job["archive"]) as archive:

        def opened(name):
            asked = {"path": archive.read(name), "delegate": job["delegate"], "properties": {}}
            return load(runtime, asked, job)[0]

        reference = opened("reference")
        for name in order:
            more = job["units"][name] - 1
            once, often = opened(name + ".1"), opened(name + ".n") if more else None
            units[name] = dict((often or once).proof(), **rounds_of(once, often, reference, job["rounds"]))
        return {"units": units, "reference": reference.proof()}


def rounds_of(once, often, reference, rounds):
    """Nanoseconds over rounds in which nothing interrupted this thread, as far as there are any.

    The reference runs beside them, always the same: by it the clock of the moment can be told. What ran
    before it leaves cold caches and sleeping parts of the processor, so that its first run does not count,
    and of the next ones the fastest does. Over the rounds, lower quartiles: what disturbs only ever adds. A
    file that is alone runs twice a round, finds its own things in the caches the second time, and has a
    median.
    """
    turn = [(once, "once"), (often, "often")] if often else [(once, "before"), (once, "once")]
    rounds *= 1 if often else 3  # a whole network has no difference in which errors cancel
    for model, _ in turn * 2:
        model.run()
    quiet: list = []
    disturbed: list = []
    counted = preemptions() or (lambda: 0)
    while len(quiet) < rounds and len(disturbed) < 5 * rounds:
        if often:
            random.shuffle(turn)
        before = counted()
        reference.run()
        taken = {"reference": min(timed(reference) for _ in range(REFERENCE_RUNS))}
        taken.update((name, timed(model)) for model, name in turn)
        (quiet if counted() == before else disturbed).append(taken)
    rows = quiet if len(quiet) >= MIN_ROUNDS else quiet + disturbed
    found = {
        "once_ns": quantile([row["once"] for row in rows], 0.5),
        "reference_ns": quantile([row["reference"] for row in rows], 0.25),
        "quiet": len(quiet),
    }
    if often:
        low = [quantile([row[name] for row in rows], 0.25) for name in ("once", "often")]
        found["more_ns"] = low[1] - low[0]
    return found


def timed(model):
    start = time.perf_counter_ns()
    model.run()
    return time.perf_counter_ns() - start


def quantile(numbers, share):
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def seconds_since_boot():
    try:
        with open("/proc/uptime") as file:
            return float(file.read().split()[0])
    except OSError:
        return None


def memory(runtime, job):
    (asked,) = files_of(job).values()
    import numpy  # noqa: F401 (the runtime needs it: not the model's)

    before = status("VmRSS")
    load(runtime, asked, job)
    peak = status("VmHWM")
    if before is None or peak is None:
        return {"peak_bytes": None, "method": "this system has no /proc/self/status"}
    method = "VmHWM of a fresh process with one file, less its VmRSS after importing the runtime"
    return {"peak_bytes": max(0, peak - before), "method": method}


def status(field):
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def outputs(runtime, job):
    import numpy as np

    (asked,) = files_of(job).values()
    model = runtime.open(asked["path"], job["threads"], asked["delegate"], asked["properties"])
    with np.load(job["inputs"], allow_pickle=False) as given:
        inputs = [given[str(i)] for i in range(len(model.inputs))]
    rows = []
    for k in range(len(inputs[0])):
        model.set([array[k] for array in inputs])
        model.run()
        rows.append([np.array(array) for array in model.get()])
    stacked: dict = {str(i): np.stack([row[i] for row in rows]) for i in range(len(rows[0]))}
    np.savez(job["outputs"], **stacked)
    digest = hashlib.sha256()
    for name in sorted(stacked):
        digest.update(np.ascontiguousarray(stacked[name]).tobytes())
    return dict(model.proof(), count=len(rows), sha256=digest.hexdigest())


def check(runtime, job):
    import numpy

    if job.get("delegate"):
        runtime.need(job["delegate"])
    return {"numpy": numpy.__version__}


RUNTIMES: dict = {"litert": LiteRT, "onnxruntime": OnnxRuntime, "openvino": OpenVino}


def main():
    job = json.loads(sys.argv[1])
    runtime = RUNTIMES[job["runtime"]]() if "runtime" in job else None
    modes = {"check": check, "measure": measure, "copies": copies, "memory": memory, "outputs": outputs}
    result = modes[job["mode"]](runtime, job)
    if runtime is not None:
        result["runtime"] = runtime.name
        result["version"] = runtime.version()
    result["python"] = platform.python_version()
    sys.stderr.flush()
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
