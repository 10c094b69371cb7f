//! Messages as bytes, in either dialect.

use crate::Dialect;
use serde::Serialize;
use serde_json::value::RawValue;

/// `"x"` for a member whose value is JSON text already.
fn raw(text: &str) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_str(text)
}

impl Dialect {
    pub(crate) fn request<P: Serialize + ?Sized>(
        self,
        id: u64,
        method: &str,
        params: &P,
    ) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Request<'a, P: ?Sized> {
            #[serde(skip_serializing_if = "Option::is_none")]
            jsonrpc: Option<&'a str>,
            id: u64,
            method: &'a str,
            params: &'a P,
        }
        serde_json::to_vec(&Request {
            jsonrpc: self.version(),
            id,
            method,
            params,
        })
    }

    pub(crate) fn notification<P: Serialize + ?Sized>(
        self,
        method: &str,
        params: &P,
    ) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct V1<'a, P: ?Sized> {
            id: (),
            method: &'a str,
            params: &'a P,
        }
        #[derive(Serialize)]
        struct V2<'a, P: ?Sized> {
            jsonrpc: &'a str,
            method: &'a str,
            params: &'a P,
        }
        // JSON-RPC 1.0 §1.3: a notification is a request whose id is null; 2.0 §4.1: it has none.
        match self {
            Dialect::V1 => serde_json::to_vec(&V1 {
                id: (),
                method,
                params,
            }),
            Dialect::V2 => serde_json::to_vec(&V2 {
                jsonrpc: "2.0",
                method,
                params,
            }),
        }
    }

    pub(crate) fn response<R: Serialize + ?Sized>(
        self,
        id: &str,
        result: &R,
    ) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct V1<'a, R: ?Sized> {
            id: &'a RawValue,
            result: &'a R,
            error: (),
        }
        #[derive(Serialize)]
        struct V2<'a, R: ?Sized> {
            jsonrpc: &'a str,
            id: &'a RawValue,
            result: &'a R,
        }
        let id = raw(id)?;
        match self {
            Dialect::V1 => serde_json::to_vec(&V1 {
                id,
                result,
                error: (),
            }),
            Dialect::V2 => serde_json::to_vec(&V2 {
                jsonrpc: "2.0",
                id,
                result,
            }),
        }
    }

    pub(crate) fn failure<E: Serialize + ?Sized>(
        self,
        id: &str,
        error: &E,
    ) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct V1<'a, E: ?Sized> {
            id: &'a RawValue,
            result: (),
            error: &'a E,
        }
        #[derive(Serialize)]
        struct V2<'a, E: ?Sized> {
            jsonrpc: &'a str,
            id: &'a RawValue,
            error: &'a E,
        }
        let id = raw(id)?;
        match self {
            Dialect::V1 => serde_json::to_vec(&V1 {
                id,
                result: (),
                error,
            }),
            Dialect::V2 => serde_json::to_vec(&V2 {
                jsonrpc: "2.0",
                id,
                error,
            }),
        }
    }

    fn version(self) -> Option<&'static str> {
        (self == Dialect::V2).then_some("2.0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_what_the_dialects_say() {
        let text = |bytes: Result<Vec<u8>, serde_json::Error>| {
            serde_json::from_slice::<serde_json::Value>(&bytes.unwrap()).unwrap()
        };
        let (v1, v2) = (Dialect::V1, Dialect::V2);
        let params = json!([1]);
        let cases = [
            (
                v1.request(1, "m", &params),
                json!({"id":1,"method":"m","params":[1]}),
            ),
            (
                v2.request(1, "m", &params),
                json!({"jsonrpc":"2.0","id":1,"method":"m","params":[1]}),
            ),
            (
                v1.notification("m", &params),
                json!({"id":null,"method":"m","params":[1]}),
            ),
            (
                v2.notification("m", &params),
                json!({"jsonrpc":"2.0","method":"m","params":[1]}),
            ),
            (
                v1.response("\"e\"", &params),
                json!({"id":"e","result":[1],"error":null}),
            ),
            (
                v2.response("3", &params),
                json!({"jsonrpc":"2.0","id":3,"result":[1]}),
            ),
            (
                v1.failure("3", "no"),
                json!({"id":3,"result":null,"error":"no"}),
            ),
        ];
        for (written, expected) in cases {
            assert_eq!(text(written), expected);
        }
    }
}
