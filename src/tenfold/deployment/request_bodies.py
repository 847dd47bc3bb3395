"""The image in a request, as people send it: as it is, in a form, or in JSON; compressed or not."""

import base64
import re
import zlib
from typing import Annotated

from pydantic import AliasChoices, BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

FIELDS = ("file", "image")
"""What the part of a form, or of JSON, that holds the image may be called."""

MOST_MARKS = 100
"""Quotes, brackets and commas in JSON around an image, each of which takes time to parse."""

_BOUNDARY = re.compile(r'boundary="?([^";]{1,70})')
_NAME = re.compile(rb'\bname="?([^";\r\n]*)', re.IGNORECASE)


class ImageRequest(BaseModel):
    """An image in JSON."""

    image: Annotated[
        str,
        Field(
            validation_alias=AliasChoices(*FIELDS),
            description="A file's bytes in base64, or a data URI of them.",
        ),
    ]


def uncompressed(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """What gzip or deflate made `body` of. Raises HTTPException, and for more than `max_bytes`."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise HTTPException(415, "Bodies may be compressed by gzip or deflate")
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # Some call it deflate without its header.
        decompressor = zlib.decompressobj(bits)
        try:
            found = decompressor.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(found) > max_bytes:
            raise HTTPException(413, f"A body may have {max_bytes:,} bytes, uncompressed too")
        if decompressor.eof:
            return found
    raise HTTPException(400, f"The body is not in {encoding}, as its header says")


def image_in(body: bytes, content_type: str) -> bytes:
    """A file's bytes in a body of that type. Raises HTTPException where there are none."""
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind == "multipart/form-data":
        content = _in_form(body, content_type)
    elif kind == "application/json":
        content = _in_json(body)
    else:
        content = body
    if not content:
        raise HTTPException(400, "There is no image in the body; send a file's bytes")
    return content


def _in_form(body: bytes, content_type: str) -> bytes:
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise HTTPException(400, "The form's type names no boundary")
    # No more parts are split off than anybody sends.
    parts = (b"\r\n" + body).split(b"\r\n--" + found[1].strip().encode(), 20)[1:]
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head[:1000])
        if name and name[1].decode("latin-1") in FIELDS:
            return content
    raise HTTPException(400, f"The form has no part of the name {' or '.join(FIELDS)}")


def _in_json(body: bytes) -> bytes:
    if sum(body.count(sign) for sign in b'"[{,') > MOST_MARKS:
        raise HTTPException(400, "JSON holds more than an image; send a file's bytes as they are")
    try:
        text = ImageRequest.model_validate_json(body).image
        if text.startswith("data:"):
            text = text.partition(",")[2]
        return base64.b64decode(text, validate=True)
    except (ValidationError, ValueError) as error:
        raise HTTPException(400, 'JSON should be {"image": a file\'s bytes in base64}') from error
