"""Limits for the agent's clients."""

from __future__ import annotations

from schedhook.agent.clients import AdmissionControl


def test_users_have_a_rate_limit_and_root_has_none() -> None:
    class FakeClient:
        def __init__(self, uid: int) -> None:
            self.uid, self.trusted = uid, uid == 0

    admission, user, root = AdmissionControl(), FakeClient(1000), FakeClient(0)
    refusals = [admission.refusal(user, [], 10.0) for _ in range(101)]  # type: ignore[arg-type]
    assert refusals[:100] == [None] * 100
    assert refusals[100] == "too many events in a short time"
    assert admission.refusal(FakeClient(1001), [], 10.0) is None  # type: ignore[arg-type]
    assert admission.refusal(user, [], 11.0) is None  # type: ignore[arg-type]
    assert all(admission.refusal(root, [], 10.0) is None for _ in range(5000))  # type: ignore[arg-type]
    # One user may have many user ids in a user namespace; the limit of all users holds for them.
    many = [admission.refusal(FakeClient(uid), [], 20.0) for uid in range(2000, 9000)]  # type: ignore[arg-type]
    assert many.count(None) == 1000
