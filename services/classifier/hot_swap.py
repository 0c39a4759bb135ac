"""Hot swap of the classifier's model: follows the choice of a model without a restart.

A thread polls the choice about every second, and loads and warms a new model while the old one works; the stage takes it
between two batches. A model that cannot be loaded is refused: the old one goes on, and the refusal is counted, logged and
recorded in the store, where the API shows it. The same choice is not tried again until a model is chosen again.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

from moodline.services.classifier.model import Model
from moodline.shared.clock import Clock
from moodline.shared.errors import ModelError, StoreError
from moodline.shared.metrics import Metrics
from moodline.shared.store.base import ConfigEntries
from moodline.shared.store.model_choice import ModelChoice, ModelRefusal, read_choice, write_refusal

log = logging.getLogger("moodline.classifier")

_INTERVAL_S: Final = 1.0
_JOIN_S: Final = 30.0
_REASON_LIMIT: Final = 500


class ModelHotSwap:
    """Loads the models of one classifier.

    Args of the constructor:
        config_entries: Where the choice is.
        load: Returns a model by its name, or that of the settings for None, ready to answer; raises `ModelError`.
        metrics: Where refusals are counted.
        clock: For the time of refusals.
    """

    def __init__(
        self, config_entries: ConfigEntries, load: Callable[[str | None], Model], metrics: Metrics, clock: Clock
    ) -> None:
        self._config_entries = config_entries
        self._load = load
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: ModelChoice | None = None
        self._newest = ""
        self._ready: Model | None = None

    def open_first(self) -> Model:
        """Return the model to begin with: the chosen one, or that of the settings where none is, or it cannot be used.

        Raises:
            ModelError: nor can that of the settings.
            StoreUnavailableError: the store cannot be asked.
        """
        self._seen = read_choice(self._config_entries)
        model = self._try(self._seen) if self._seen is not None else None
        model = model or self._load(None)
        self._newest = model.name
        return model

    def start(self) -> None:
        """Begin to poll the choice, in a separate thread."""
        self._thread = threading.Thread(target=self._run, name="model-switch", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Poll the choice once, and load a new model. May take seconds. A store that is unavailable is asked again later."""
        try:
            choice = read_choice(self._config_entries)
        except StoreError as error:
            log.warning("model.choice_unknown", extra={"reason": str(error)})
            return
        if choice is None or choice == self._seen:
            return
        self._seen = choice
        model = self._try(choice) if choice.name != self._newest else None
        if model is not None:
            self._newest = model.name
            with self._lock:
                self._ready, unused = model, self._ready
            if unused is not None:
                unused.close()

    def take(self) -> Model | None:
        """Return, once, a model that is ready to replace the present one; never blocks. The caller closes both."""
        if self._ready is None:
            return None
        with self._lock:
            model, self._ready = self._ready, None
        return model

    def close(self) -> None:
        """Stop polling, and close a model that was not taken. Waits for one that is being loaded."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        model = self.take()
        if model is not None:
            model.close()

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self.poll()

    def _try(self, choice: ModelChoice) -> Model | None:
        try:
            return self._load(choice.name)
        except ModelError as error:
            self._refuse(choice, str(error)[:_REASON_LIMIT])
            return None

    def _refuse(self, choice: ModelChoice, reason: str) -> None:
        self._metrics.model_refusals.inc()
        log.error("model.refused", extra={"model": choice.name, "reason": reason})
        try:
            write_refusal(self._config_entries, ModelRefusal(choice, reason, int(self._clock.now_s() * 1e6)))
        except StoreError as error:
            log.warning("model.refusal_unsaid", extra={"reason": str(error)})
