"""The HTTP front: routes, limits, and errors as OpenAI clients expect them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from tandem_runtime.contracts.classes import Classes
from tandem_runtime.contracts.goodput import SloClass
from tandem_runtime.contracts.names import DEFAULT_REQUEST_TIMEOUT_SECONDS, HEADER_CLASS, HEADER_TIMEOUT_MS
from tandem_runtime.contracts.pod_protocol import Submit
from tandem_runtime.contracts.trace import HEADER as HEADER_TRACE
from tandem_runtime.contracts.trace import new_trace, read_trace
from tandem_runtime.openai.answers import ChunkWriter, Envelope, error_event, model_card
from tandem_runtime.openai.backend import Backend
from tandem_runtime.openai.bodies import Bodies
from tandem_runtime.openai.choices import Choices, answer_choices
from tandem_runtime.openai.errors import CLIENT_GONE_STATUS, ApiError, bad_request
from tandem_runtime.openai.exchange import answer_stream, answer_whole
from tandem_runtime.openai.prompt import build_generation
from tandem_runtime.openai.record import RequestRecord
from tandem_runtime.openai.schemas import ChatRequest, CompletionRequest, parse_body, unknown_model
from tandem_runtime.openai.stages import NO_STAGES, Passage, Stages, Visit
from tandem_runtime.openai.tokenization import Tokenization
from tandem_runtime.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

HEADER_REQUEST_ID = "x-request-id"
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
LAST_EVENT_SECONDS = 1.0
"""For a client to take the error that ends its stream."""
REQUEST_ID_KEY = web.RequestKey("request_id", str)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """Settings of the front and why they are so."""

    model_name: str
    request_timeout_seconds: float = DEFAULT_REQUEST_TIMEOUT_SECONDS
    """For requests without x-tandem-timeout-ms; the header may ask for less or for more."""
    max_timeout_seconds: float = 24 * 3600.0
    """Nobody waits longer; a typing mistake in the header must not pin a request for ever."""
    body_seconds: float = 60.0
    """To send the body: a client that stalls must not hold a connection, nor the end of a drain."""
    max_body_bytes: int = 16 << 20
    """A prompt of a million token ids written as JSON takes about 7 MB."""
    max_bodies_bytes: int = 256 << 20
    """Of all bodies that are arriving or being read: a thousand clients may not send 16 MB each at the same time."""
    max_prompt_tokens: int | None = None
    """Less than the context, where a deployment wants that; None: the context alone bounds it."""


class Front:
    """One per process. `observe` gets each request once, after its last byte."""

    def __init__(
        self,
        settings: FrontSettings,
        tokenizer: Tokenizer,
        backend: Backend,
        observe: Callable[[RequestRecord], None] = lambda record: None,
        make_seed: Callable[[], int] = lambda: secrets.randbits(63),
        classes: Classes | None = None,
        stages: Stages = NO_STAGES,
    ) -> None:
        self.settings = settings
        self.stages = stages
        self.classes = classes or Classes()
        """Of requests; may be replaced at any time."""
        self.in_flight = 0
        """Requests whose answer is not finished; 0 means that the process may end."""
        self.draining = False
        """Answers ask clients to leave: `Connection: close`."""
        self._bodies = Bodies(settings.max_body_bytes, settings.max_bodies_bytes, settings.body_seconds)
        self._tokenizer = tokenizer
        self._backend = backend
        self._observe = observe
        self._make_seed = make_seed
        self._started = int(time.time())

    def application(self) -> web.Application:
        """Serve it with `web.AppRunner(app, handler_cancellation=True)`: a client that leaves cancels its request."""
        app = web.Application(client_max_size=self.settings.max_body_bytes, middlewares=[self._answer_errors])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{model:.+}", self._show_model)
        app.router.add_get("/health", self._tell_health)
        name, context = self.settings.model_name, lambda: self._backend.max_context_tokens
        Tokenization(self._tokenizer, name, context, self._bodies.read, self._let_in).add_routes(app)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, ChatRequest)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, CompletionRequest)

    async def _tell_health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "draining" if self.draining else "ok"})

    async def _list_models(self, request: web.Request) -> web.Response:
        self._let_in(request)
        return web.json_response({"object": "list", "data": [self._card()]})

    async def _show_model(self, request: web.Request) -> web.Response:
        self._let_in(request)
        self._check_model(request.match_info["model"])
        return web.json_response(self._card())

    def _let_in(self, request: web.Request) -> None:
        """Of what is answered at once. Raises ApiError."""
        visit = Visit(self.stages, Passage(request.headers, RequestRecord(request[REQUEST_ID_KEY], request.path)))
        try:
            visit.enter()
        finally:
            visit.leave()

    def _card(self) -> dict[str, object]:
        return model_card(self.settings.model_name, self._started, self._backend.max_context_tokens)

    def _check_model(self, name: str) -> None:
        if name != self.settings.model_name:
            raise unknown_model(name, self.settings.model_name)

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request.headers.get(HEADER_REQUEST_ID, "")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = secrets.token_hex(12)
        request[REQUEST_ID_KEY] = request_id
        try:
            response = await handler(request)
        except ApiError as error:
            response = error_response(error)
        except web.HTTPException as error:
            response = error_response(error_of_http(error, request))
        if not response.prepared:
            self._add_headers(response, request)
        return response

    def _add_headers(self, response: web.StreamResponse, request: web.Request) -> None:
        response.headers[HEADER_REQUEST_ID] = request[REQUEST_ID_KEY]
        if self.draining:
            response.force_close()

    async def _generate(
        self, request: web.Request, kind: type[ChatRequest] | type[CompletionRequest]
    ) -> web.StreamResponse:
        """One request; whatever happens to it, it is counted once and its record ends with a status."""
        record = RequestRecord(id=request[REQUEST_ID_KEY], path=request.path)
        given = read_trace(request.headers.get(HEADER_TRACE, ""))
        record.trace = given.child(os.urandom) if given is not None else new_trace(os.urandom)
        record.parent_span = given.span_id if given is not None else ""
        visit = Visit(self.stages, Passage(request.headers, record))
        response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        self._add_headers(response, request)
        self.in_flight += 1
        try:
            return await self._answer(request, kind, visit, response)
        except ApiError as error:
            record.end(error.status, error.code or error.type, error.message)
            if not response.prepared:
                raise
            await end_stream(request, response, error)
            return response
        except (asyncio.CancelledError, ConnectionError) as error:  # it left, or was cut off for not reading
            if record.status != CLIENT_GONE_STATUS:
                record.end(CLIENT_GONE_STATUS, "client_gone")
            if isinstance(error, ConnectionError):
                return response
            raise
        finally:
            self.in_flight -= 1
            visit.leave()
            for each in record.all_choices():
                self._observe(each)

    async def _answer(
        self,
        request: web.Request,
        kind: type[ChatRequest] | type[CompletionRequest],
        visit: Visit,
        response: web.StreamResponse,
    ) -> web.StreamResponse:
        """Raises ApiError for everything that is not a client who left."""
        record = visit.passage.record
        try:
            visit.enter()
            timeout_seconds = self._timeout_seconds(request)
            slo = self._class(request, visit.passage.default_class)
            record.request_class = slo.name
            body = await self._bodies.read(request, partial(parse_body, kind=kind))
            record.started = time.monotonic()
            async with asyncio.timeout(timeout_seconds):
                return await self._exchange(request, body, visit, response, timeout_seconds, slo)
        except TimeoutError as error:
            raise ApiError(
                504,
                f"the request timeout of {timeout_seconds:g} s passed after {record.output_tokens} output tokens; "
                f"header {HEADER_TIMEOUT_MS} sets it",
                "timeout_error",
                code="timeout",
            ) from error
        except web.HTTPException as error:
            raise error_of_http(error, request) from error
        except (ApiError, ConnectionError):
            raise
        except Exception as error:
            log.exception("request %s failed inside the front", record.id)
            raise ApiError(500, f"internal error in request {record.id}", "server_error", "internal_error") from error

    async def _exchange(
        self,
        request: web.Request,
        body: ChatRequest | CompletionRequest,
        visit: Visit,
        response: web.StreamResponse,
        timeout_seconds: float,
        slo: SloClass,
    ) -> web.StreamResponse:
        record = visit.passage.record
        self._check_model(body.model)
        record.stream = bool(body.stream)
        if body.stream_options is not None and not record.stream:
            raise bad_request("stream_options is only allowed together with stream: true", "stream_options")
        generation = await build_generation(body, self._tokenizer, self._backend.max_context_tokens, self._make_seed)
        record.prompt_tokens = len(generation.prompt_ids)
        self._check_prompt(record.prompt_tokens)
        # Unique even when two clients send the same x-request-id at the same time.
        record.submit_id = f"{record.id}-{secrets.token_hex(4)}"
        record.ttft_bound_seconds = slo.ttft_bound_s(record.prompt_tokens)
        record.tpot_bound_seconds = slo.tpot_s
        spent_seconds = time.monotonic() - record.started
        submit = Submit(
            id=record.submit_id,
            attempt=0,
            prompt_ids=generation.prompt_ids,
            sampling=generation.sampling,
            stop=generation.stop,
            want_logprobs=0 if generation.sampling.logprobs is None else 1 + generation.sampling.logprobs,
            remaining_ms=max(1, int(1000 * (timeout_seconds - spent_seconds))),
            request_class=slo.name,
            spent_ms=int(1000 * spent_seconds),
            traceparent=record.trace.header() if record.trace is not None else "",
        )
        submit = visit.admit(submit)
        backend = visit.over(self._backend)
        chat = isinstance(body, ChatRequest)
        answer_id = f"{'chatcmpl' if chat else 'cmpl'}-{record.id}"
        envelope = Envelope(chat, answer_id, int(time.time()), body.model)
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        alternatives = generation.sampling.logprobs
        if (body.n or 1) > 1 or alternatives is not None:
            choices = Choices(body.n or 1, alternatives, envelope, self._tokenizer, include_usage)
            return await answer_choices(backend, submit, choices, record, response, request)
        if not record.stream:
            return await answer_whole(backend, submit, envelope, record)
        await answer_stream(backend, submit, ChunkWriter(envelope, include_usage), record, response, request)
        return response

    def _check_prompt(self, tokens: int) -> None:
        limit = self.settings.max_prompt_tokens
        if limit is not None and tokens > limit:
            text = f"the prompt has {tokens} tokens; this deployment takes at most {limit}"
            raise bad_request(text, code="prompt_too_long")

    def _class(self, request: web.Request, default: str) -> SloClass:
        name = request.headers.get(HEADER_CLASS, "")
        slo = self.classes.find(name or default)
        if slo is None and not name:  # the class of an API key is gone: not the client's fault
            slo = self.classes.default
        if slo is None:
            known = ", ".join(each.name for each in self.classes.all)
            text = f"{HEADER_CLASS} is {name[:63]!r}; this deployment has the classes {known}"
            raise bad_request(text, code="unknown_class")
        return slo

    def _timeout_seconds(self, request: web.Request) -> float:
        value = request.headers.get(HEADER_TIMEOUT_MS)
        if value is None:
            return self.settings.request_timeout_seconds
        if not (value.isascii() and value.isdigit() and len(value) < 12 and int(value) > 0):
            raise bad_request(f"{HEADER_TIMEOUT_MS} is {value[:40]!r}; expected is a whole number of milliseconds")
        return min(int(value) / 1000, self.settings.max_timeout_seconds)


async def end_stream(request: web.Request, response: web.StreamResponse, error: ApiError) -> None:
    """Too late for a status: the error is the last event, and no [DONE] follows it. Who does not read is cut off."""
    try:
        async with asyncio.timeout(LAST_EVENT_SECONDS):
            await response.write(error_event(error.encoded()))
    except (TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()


def error_response(error: ApiError) -> web.Response:
    """The JSON body with its headers."""
    return web.Response(
        status=error.status, body=error.encoded(), content_type="application/json", headers=error.headers()
    )


def error_of_http(error: web.HTTPException, request: web.Request) -> ApiError:
    """What aiohttp refuses on its own: unknown path, wrong method."""
    if isinstance(error, web.HTTPNotFound):
        return ApiError(
            404,
            f"there is no {request.path[:100]}; this server has /v1/chat/completions, /v1/completions, "
            "/v1/models, /tokenize and /detokenize",
            code="unknown_path",
        )
    return ApiError(error.status, error.reason, code=error.reason.lower().replace(" ", "_"))
