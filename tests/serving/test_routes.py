"""Where a route's work is done: an answer that is short holds up nobody, and one that has to wait has a thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from serving import routes, shown
from serving.model import Model
from serving.state import State


def test_recommendations_wait_for_a_lock_in_a_thread(service_folder: Path, monkeypatch: Any) -> None:
    state = State(Model(service_folder))
    here: Any = SimpleNamespace(state=state)
    user, found, threads = state.user_id(3), shown.recommended, []

    def noted(*given: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return found(*given)

    monkeypatch.setattr(shown, "recommended", noted)

    async def asked() -> list[Any]:
        taken, ended = threading.Event(), threading.Event()

        def hold() -> None:
            with state.lock:
                taken.set()
                ended.wait()

        answers = [await routes.get_recommendations(here, user, k, -99.0) for k in (20, routes.SHORT + 1)]
        holder = threading.Thread(target=hold)
        holder.start()
        taken.wait()
        waiting = asyncio.create_task(routes.get_recommendations(here, user, 20, -99.0))
        for _ in range(5):
            await asyncio.sleep(0.01)
            assert not waiting.done()
        ended.set()
        answers.append(await waiting)
        holder.join()
        monkeypatch.setattr(routes, "FEW", state.pool.size - 1)
        return [*answers, await routes.get_recommendations(here, user, 20, -99.0)]

    short, more, waited, of_many = asyncio.run(asked())
    assert threads == [True, False, False, False]
    assert short == waited == of_many and len(short.songs) == 20 and more.songs[:20] == short.songs
