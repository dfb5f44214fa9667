"""Listeners of a node's events: typed, bounded, and never in the way."""

from __future__ import annotations

import asyncio

import pytest

from stt_core.subscriptions import LinkLost, NodeEvent, PluginFailed, Subscriptions


@pytest.mark.asyncio
async def test_a_listener_gets_the_events_of_its_types_in_order() -> None:
    subscriptions = Subscriptions()
    subscription = subscriptions.subscribe(LinkLost)

    for event in (LinkLost("a", ""), PluginFailed("p", ""), LinkLost("b", "")):
        subscriptions.publish(event)
    subscription.close()

    assert [event async for event in subscription] == [LinkLost("a", ""), LinkLost("b", "")]


@pytest.mark.asyncio
async def test_without_types_a_listener_gets_all_events() -> None:
    subscriptions = Subscriptions()
    subscription = subscriptions.subscribe(NodeEvent)

    subscriptions.publish(PluginFailed("p", ""))

    assert await anext(subscription) == PluginFailed("p", "")


@pytest.mark.asyncio
async def test_a_waiting_listener_is_woken() -> None:
    subscriptions = Subscriptions()
    subscription = subscriptions.subscribe(NodeEvent)
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)

    subscriptions.publish(NodeEvent())

    assert await waiting == NodeEvent()


@pytest.mark.asyncio
async def test_a_slow_listener_loses_the_oldest_events_and_knows_how_many() -> None:
    subscriptions = Subscriptions()
    subscription = subscriptions.subscribe(NodeEvent, queue_size=2)

    for name in "abc":
        subscriptions.publish(LinkLost(name, ""))
    subscription.close()

    assert subscription.dropped == 1
    assert [event async for event in subscription] == [LinkLost("b", ""), LinkLost("c", "")]


@pytest.mark.asyncio
async def test_leaving_the_block_unsubscribes() -> None:
    subscriptions = Subscriptions()
    async with subscriptions.subscribe(NodeEvent) as subscription:
        pass

    subscriptions.publish(NodeEvent())

    assert [event async for event in subscription] == []


@pytest.mark.asyncio
async def test_the_end_of_the_node_ends_every_listener() -> None:
    subscriptions = Subscriptions()
    subscription = subscriptions.subscribe(NodeEvent)
    waiting = asyncio.ensure_future(anext(subscription, None))
    await asyncio.sleep(0)

    subscriptions.close()

    assert await waiting is None
