"""The vectors of the primitives: those of the standards, and alterations of them.

`python -m tests.vectors.standards` writes them, always with the same result.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from tests.vectors.documents import Document, Fields, flipped
from untrusted_s3.crypto.folder_key import FolderKey


def counting(first: int, length: int) -> bytes:
    """Return bytes that count up."""
    return bytes(range(first, first + length))


def scrypt() -> Document:
    document = Document("scrypt")
    vectors = [
        (b"", b"", 16, 1, 1, "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
         "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906"),
        (b"password", b"NaCl", 1024, 8, 16, "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
         "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"),
        (b"pleaseletmein", b"SodiumChloride", 16384, 8, 1, "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6"
         "545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"),
    ]  # fmt: skip
    for number, (password, salt, n, r, p, text) in enumerate(vectors, 1):
        fields = {"password": password, "salt": salt, "n": n, "r": r, "p": p, "length": 64, "key": bytes.fromhex(text)}
        document.valid(f"rfc7914-{number}", ["rfc7914"], fields)
    password, salt, n, r, p, text = vectors[1]
    key = bytes.fromhex(text)
    right: Fields = {"password": password, "salt": salt, "n": n, "r": r, "p": p, "length": 64, "key": key}
    shorter = {**right, "length": 32, "key": key[:32]}
    comment = "a shorter key is the beginning of a longer one"
    document.valid("rfc7914-2-first-32-bytes", ["derived"], shorter, comment)
    changes: dict[str, Fields] = {
        "other-password": {"password": b"passwore"},
        "no-password": {"password": b""},
        "other-salt": {"salt": b"NaCL"},
        "other-n": {"n": 2048},
        "other-r": {"r": 4},
        "other-p": {"p": 1},
        "flipped-bit": {"key": flipped(key, -1)},
    }
    document.altered("rfc7914-2", right, changes)
    return document


def hkdf_sha256() -> Document:
    document = Document("hkdf_sha256")
    vectors = [
        (bytes([11] * 22), counting(0, 13), counting(0xF0, 10),
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"),
        (counting(0, 80), counting(0x60, 80), counting(0xB0, 80),
         "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
         "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"),
        (bytes([11] * 22), b"", b"",
         "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
    ]  # fmt: skip
    for number, (input_key, salt, info, text) in enumerate(vectors, 1):
        key = bytes.fromhex(text)
        fields: Fields = {"input_key": input_key, "salt": salt, "info": info, "length": len(key), "output_key": key}
        document.valid(f"rfc5869-a{number}", ["rfc5869"], fields)
    input_key, salt, info, text = vectors[0]
    key = bytes.fromhex(text)
    right: Fields = {"input_key": input_key, "salt": salt, "info": info, "length": len(key), "output_key": key}
    changes: dict[str, Fields] = {
        "other-input": {"input_key": flipped(input_key, 0)},
        "other-salt": {"salt": flipped(salt, 0)},
        "no-salt": {"salt": b""},
        "no-info": {"info": b""},
        "salt-and-input-exchanged": {"input_key": salt, "salt": input_key},
        "flipped-bit": {"output_key": flipped(key, -1)},
    }
    document.altered("rfc5869-a1", right, changes)
    return document


def aes_siv() -> Document:
    document = Document("aes_siv")
    key_1, data_1 = bytes(range(0xFF, 0xEF, -1)) + counting(0xF0, 16), [counting(0x10, 24)]
    plain_1 = bytes.fromhex("112233445566778899aabbccddee")
    sealed_1 = bytes.fromhex("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c")
    right: Fields = {"key": key_1, "associated_data": data_1, "plaintext": plain_1, "ciphertext": sealed_1}
    document.valid("rfc5297-a1", ["rfc5297"], right)
    data_2 = [
        bytes.fromhex("00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100"),
        bytes.fromhex("102030405060708090a0"),
        bytes.fromhex("09f911029d74e35bd84156c5635688c0"),
    ]
    sealed_2 = bytes.fromhex(
        "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17"
        "dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d"
    )
    fields: Fields = {
        "key": bytes(range(0x7F, 0x6F, -1)) + counting(0x40, 16),
        "associated_data": data_2,
        "plaintext": b"this is some plaintext to encrypt using SIV-AES",
        "ciphertext": sealed_2,
    }
    document.valid("rfc5297-a2", ["rfc5297"], fields, "the nonce is the last associated string")
    for name, data, plaintext, comment in [
        ("no-data", [], plain_1, "no associated string"),
        ("one-empty", [b""], plain_1, "one empty associated string, as in Syncthing's names: not the same as none"),
        ("data-and-empty", [bytes(8), b""], plain_1, "a string and an empty one, as in Syncthing's block tokens"),
        ("data-alone", [bytes(8)], plain_1, "the same without the empty one"),
        ("one-block", [b""], counting(0, 16), "exactly one block of AES"),
        ("one-block-and-a-byte", [b""], counting(0, 17), "one byte more"),
    ]:
        sealed = AESSIV(key_1).encrypt(plaintext, list(data))
        fields = {"key": key_1, "associated_data": data, "plaintext": plaintext, "ciphertext": sealed}
        document.valid(name, ["derived"], fields, f"the key of rfc5297-a1; {comment}")
    right = {"key": key_1, "associated_data": data_1, "ciphertext": sealed_1}
    changes: dict[str, Fields] = {
        "flipped-bit-in-tag": {"ciphertext": flipped(sealed_1, 0)},
        "flipped-bit-in-text": {"ciphertext": flipped(sealed_1, -1, 7)},
        "truncated": {"ciphertext": sealed_1[:-1]},
        "longer": {"ciphertext": sealed_1 + b"\0"},
        "tag-alone": {"ciphertext": sealed_1[:16]},
        "shorter-than-a-tag": {"ciphertext": sealed_1[:15]},
        "nothing": {"ciphertext": b""},
        "wrong-key": {"key": flipped(key_1, 0)},
        "wrong-encryption-key": {"key": flipped(key_1, -1)},
        "halves-of-key-exchanged": {"key": key_1[16:] + key_1[:16]},
        "other-data": {"associated_data": [flipped(data_1[0], 0)]},
        "no-data": {"associated_data": []},
        "empty-data": {"associated_data": [b""]},
        "one-more-empty": {"associated_data": [*data_1, b""]},
        "data-in-two": {"associated_data": [data_1[0][:8], data_1[0][8:]]},
    }
    document.altered("rfc5297-a1", right, changes)
    return document


def hchacha20() -> Document:
    document = Document("hchacha20")
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    subkey = bytes.fromhex("82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc")
    right: Fields = {"key": counting(0, 32), "nonce": nonce, "subkey": subkey}
    document.valid("xchacha-2.2.1", ["xchacha"], right)
    changes: dict[str, Fields] = {
        "other-key": {"key": counting(1, 32)},
        "other-nonce": {"nonce": flipped(nonce, 0)},
        "words-exchanged": {"subkey": subkey[16:] + subkey[:16]},
        "flipped-bit": {"subkey": flipped(subkey, 31)},
    }
    document.altered("xchacha-2.2.1", right, changes)
    return document


def xchacha20_poly1305() -> Document:
    document = Document("xchacha20_poly1305")
    key, nonce, data = counting(0x80, 32), counting(0x40, 24), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future,"
        b" sunscreen would be it."
    )
    sealed = bytes.fromhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )
    right: Fields = {"key": key, "nonce": nonce, "associated_data": data, "ciphertext": sealed}
    document.valid("xchacha-a.3.1", ["xchacha"], {**right, "plaintext": plaintext})

    known = bytes.fromhex(
        "5065968912e54ffbe77ce735615461a8e53cb0081207bc21332fa00ec9391a1b84edf0a044da028d3e69ac9bc50faa259a2936"
    )
    fields = {
        "key": FolderKey.derive("my password", "my folder").file_key("filename.txt").raw,
        "nonce": known[:24],
        "associated_data": b"",
        "plaintext": b"hello world",
        "ciphertext": known[24:],
    }
    comment = 'the key is that of "filename.txt" in the folder "my folder" with the password "my password"'
    document.valid("syncthing-hello-world", ["syncthing-tests"], fields, comment)
    changes: dict[str, Fields] = {
        "flipped-bit": {"ciphertext": flipped(sealed, 0)},
        "flipped-bit-in-tag": {"ciphertext": flipped(sealed, -1, 7)},
        "truncated": {"ciphertext": sealed[:-1]},
        "longer": {"ciphertext": sealed + b"\0"},
        "tag-alone": {"ciphertext": sealed[-16:]},
        "shorter-than-a-tag": {"ciphertext": sealed[:15]},
        "nothing": {"ciphertext": b""},
        "wrong-key": {"key": flipped(key, 31)},
        "wrong-nonce": {"nonce": flipped(nonce, 0)},
        "wrong-end-of-nonce": {"nonce": flipped(nonce, -1)},
        "other-data": {"associated_data": flipped(data, 0)},
        "no-data": {"associated_data": b""},
    }
    document.altered("xchacha-a.3.1", right, changes)
    return document


def documents() -> list[Document]:
    """Return all documents whose source is a standard."""
    return [scrypt(), hkdf_sha256(), aes_siv(), hchacha20(), xchacha20_poly1305()]


if __name__ == "__main__":
    for document in documents():
        document.write()
