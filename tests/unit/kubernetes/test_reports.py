"""What the operator takes from a synchronizer that is a stranger's: a report, and no more than that."""

import asyncio
import gzip

import pytest
from aiohttp import web

from swarm_api.report import Report
from swarm_operator.backends.kubernetes.reports import Reports
from swarm_operator.backends.report import ReportError
from unit.kubernetes.objects import serving

LARGEST = 2**20
REPORT = Report(uid="u", incarnation=3)
WORDS = REPORT.model_dump_json(by_alias=True).encode()


def fetched(answer):
    """The report that is read where the synchronizer answers so, and what else it was asked for."""

    async def played():
        asked = []

        async def serve(request):
            asked.append(request.path)
            return answer(request)

        try:
            async with serving("/{path:.*}", serve) as address, Reports(None, proxied=False) as reports:
                return await reports.fetch(address, "token", "u")
        finally:
            assert asked == ["/report"]

    return asyncio.run(asyncio.wait_for(played(), 10))


def test_a_report_is_read_as_it_is():
    assert fetched(lambda _: web.Response(body=WORDS)) == REPORT
    assert fetched(lambda _: web.Response(body=WORDS + b" " * (LARGEST - len(WORDS)))) == REPORT


def test_it_is_led_nowhere_else():
    def answer(request):
        if request.path == "/report":
            raise web.HTTPFound("/secret")
        return web.Response(body=WORDS)

    with pytest.raises(ReportError, match="302 Found"):
        fetched(answer)


def test_what_is_too_long_is_not_read_to_its_end():
    with pytest.raises(ReportError, match=f"more than {LARGEST} bytes"):
        fetched(lambda _: web.Response(body=WORDS + b" " * LARGEST))


def test_what_is_packed_is_not_unpacked():
    packed = gzip.compress(WORDS + b" " * 10 * LARGEST)
    assert len(packed) < LARGEST / 10
    with pytest.raises(ReportError, match="no valid report"):
        fetched(lambda _: web.Response(body=packed, headers={"Content-Encoding": "gzip"}))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (WORDS.replace(b'"particles":[]', b'"particles":[%s]' % b",".join([b"{}"] * 10_000)), "report: 4 validation"),
        (WORDS[:-1] + b"," + b",".join(b'"%x":0' % number for number in range(10_000)) + b"}", "report: 10000 valid"),
        (b"[" * 100_000, "recursion"),
    ],
    ids=["particles", "fields", "depth"],
)
def test_what_is_wrong_many_times_is_told_in_few_words(body, complaint):
    with pytest.raises(ReportError, match=complaint) as raised:
        fetched(lambda _: web.Response(body=body))
    assert len(str(raised.value)) < 1200
