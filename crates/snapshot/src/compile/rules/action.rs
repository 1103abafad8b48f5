//! Compiles actions: which phase takes which, which parameters each takes, and what may stand in them.

use std::sync::Arc;

use expr::Phase;

use super::RuleBook;
use super::words::{is_host, is_token, is_value};
use crate::compile::Judge;
use crate::desired::rules::{
    ActionName, ActionParameters, AlgorithmWord, CacheSettings, Current, ErrorContentType,
    HeaderChange as Change, HeaderOperation as Operation, Rule as Written, SecurityLevel, ValueOrExpression,
};
use crate::diagnostic::quote;
use crate::routes::Route;
use crate::rules::{
    Action, Algorithm, Answer, Challenge, FieldSource, HeaderChange, HeaderOperation, LoggedField, Product,
    Redirect, Settings, Skip, Text,
};

/// Bytes of an answer written out in a rule.
const ANSWER_BYTES: usize = 64 << 10;
/// Bytes of a URL, path or header value written out in a rule.
const TEXT_BYTES: usize = 8 << 10;
/// Statuses of redirects.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// Request fields that are the edge's own to write, or belong to the connection.
const KEPT_FROM_REQUESTS: &[&str] = &[
    "cdn-loop",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];
/// The same of responses.
const KEPT_FROM_RESPONSES: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "rempart-request-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Which phases take an action.
fn phases_of(action: ActionName) -> &'static [Phase] {
    const FIREWALL: &[Phase] = &[Phase::FirewallCustom, Phase::RateLimit, Phase::FirewallManaged];
    match action {
        ActionName::Block
        | ActionName::Challenge
        | ActionName::JsChallenge
        | ActionName::ManagedChallenge
        | ActionName::Log => FIREWALL,
        ActionName::Skip => &[Phase::FirewallCustom, Phase::FirewallManaged],
        ActionName::Execute => Phase::ALL,
        ActionName::Redirect => &[Phase::DynamicRedirect, Phase::Redirect],
        ActionName::Rewrite => &[Phase::Transform, Phase::LateTransform, Phase::ResponseHeaders],
        ActionName::Route => &[Phase::Origin],
        ActionName::SetConfig => &[Phase::ConfigSettings],
        ActionName::SetCacheSettings => &[Phase::CacheSettings],
        ActionName::CompressResponse => &[Phase::ResponseCompression],
        ActionName::ServeError => &[Phase::CustomErrors],
        ActionName::LogCustomField => &[Phase::LogFields],
    }
}

/// Which parameters an action takes in a phase.
fn parameters_of(action: ActionName, phase: Phase) -> &'static [&'static str] {
    match (action, phase) {
        (ActionName::Block, _) => &["response"],
        (ActionName::Skip, _) => &["phase", "phases", "products", "ruleset", "rulesets", "rules"],
        (ActionName::Execute, _) => &["id", "overrides"],
        (ActionName::Redirect, Phase::Redirect) => &["from_list"],
        (ActionName::Redirect, _) => &["from_value"],
        (ActionName::Rewrite, Phase::Transform) => &["uri"],
        (ActionName::Rewrite, _) => &["headers"],
        (ActionName::Route, _) => &["host_header", "origin", "sni"],
        (ActionName::SetConfig, _) => &["hotlink_protection", "bic", "security_level"],
        (ActionName::SetCacheSettings, _) => &[
            "cache",
            "edge_ttl",
            "browser_ttl",
            "cache_key",
            "serve_stale",
            "respect_strong_etags",
            "origin_error_page_passthru",
        ],
        (ActionName::CompressResponse, _) => &["algorithms"],
        (ActionName::ServeError, _) => &["content", "content_type", "status_code"],
        (ActionName::LogCustomField, _) => &[
            "request_fields",
            "transformed_request_fields",
            "response_fields",
            "raw_response_fields",
            "cookie_fields",
        ],
        (
            ActionName::Challenge | ActionName::JsChallenge | ActionName::ManagedChallenge | ActionName::Log,
            _,
        ) => &[],
    }
}

/// The name of an action, as it is written.
pub(super) fn word(action: ActionName) -> String {
    let text = serde_json::to_value(action).ok();
    text.as_ref().and_then(|text| text.as_str()).unwrap_or_default().to_owned()
}

/// Where one rule stands.
struct At<'a> {
    place: &'a str,
    phase: Phase,
    book: &'a RuleBook,
}

impl At<'_> {
    fn of(&self, key: &str) -> String {
        format!("{}.action_parameters.{key}", self.place)
    }
}

impl Judge<'_> {
    /// The action of a rule; `None` when something is wrong with it, which was said.
    pub(super) fn action(
        &mut self,
        rule: &Written,
        place: &str,
        phase: Phase,
        book: &mut RuleBook,
    ) -> Option<Action> {
        let name = rule.action;
        if !phases_of(name).contains(&phase) {
            let message = format!("the phase {} has no action {}", quote(phase.name()), quote(&word(name)));
            let taken = phases_of(name).iter().map(|phase| quote(phase.name())).collect::<Vec<_>>();
            let hint = format!("rules with this action belong into {}", crate::shape::alternatives(&taken));
            self.review.error(&format!("{place}.action"), "action-not-allowed", message, hint);
            return None;
        }
        self.parameters(&rule.action_parameters, name, place, phase);
        if name == ActionName::Execute {
            return self.execute(&rule.action_parameters, place, phase, book);
        }
        let at = At { place, phase, book };
        let parameters = &rule.action_parameters;
        match name {
            ActionName::Execute => None,
            ActionName::Block => self.block(parameters, &at),
            ActionName::Challenge => Some(Action::Challenge(Challenge::Interactive)),
            ActionName::JsChallenge => Some(Action::Challenge(Challenge::Script)),
            ActionName::ManagedChallenge => Some(Action::Challenge(Challenge::Managed)),
            ActionName::Log => Some(Action::Log),
            ActionName::Skip => self.skip(parameters, &at),
            ActionName::Redirect if phase == Phase::Redirect => self.redirect_from_list(parameters, &at),
            ActionName::Redirect => self.redirect(parameters, &at),
            ActionName::Rewrite if phase == Phase::Transform => self.rewrite_uri(parameters, &at),
            ActionName::Rewrite => self.rewrite_headers(parameters, &at),
            ActionName::Route => self.route(parameters, &at),
            ActionName::SetConfig => self.settings(parameters, &at),
            ActionName::SetCacheSettings => Some(self.cache_settings(parameters, &at)),
            ActionName::CompressResponse => self.compress(parameters, &at),
            ActionName::ServeError => self.serve_error(parameters, &at),
            ActionName::LogCustomField => self.log_fields(parameters, &at),
        }
    }

    /// Says which parameters are for other actions.
    fn parameters(&mut self, parameters: &ActionParameters, name: ActionName, place: &str, phase: Phase) {
        let written = serde_json::to_value(parameters).unwrap_or_default();
        let taken = parameters_of(name, phase);
        for key in written.as_object().into_iter().flat_map(|keys| keys.keys()) {
            if !taken.contains(&key.as_str()) {
                let message = format!("the action {} takes no {} here", quote(&word(name)), quote(key));
                let hint = if taken.is_empty() {
                    "remove it".to_owned()
                } else {
                    format!("it takes: {}", taken.join(", "))
                };
                let at = format!("{place}.action_parameters.{key}");
                self.review.error(&at, "parameter-not-allowed", message, hint);
            }
        }
    }

    fn needs(&mut self, at: &At<'_>, key: &str, example: &str) -> Option<Action> {
        let message = format!("this action needs `{key}`");
        let place = format!("{}.action_parameters", at.place);
        self.review.error(&place, "missing-parameter", message, format!("add: {example}"));
        None
    }

    fn block(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let Some(response) = &parameters.response else { return Some(Action::Block(None)) };
        let content_type = self.content_type(&response.content_type, &at.of("response.content_type"))?;
        let content = self.answer(&response.content, &at.of("response.content"))?;
        Some(Action::Block(Some(Arc::new(Answer {
            status: Some(response.status_code),
            content_type,
            content,
        }))))
    }

    fn content_type(&mut self, text: &str, place: &str) -> Option<Box<str>> {
        let good = text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty());
        if good && is_value(text) {
            return Some(text.into());
        }
        let message = format!("{} is no media type", quote(text));
        self.review.error(place, "bad-content-type", message, "write one, such as \"text/plain\"");
        None
    }

    fn answer(&mut self, content: &str, place: &str) -> Option<Arc<[u8]>> {
        if content.len() <= ANSWER_BYTES {
            return Some(content.as_bytes().into());
        }
        let message = format!("an answer of {} bytes is too long", content.len());
        let hint = format!("at most {ANSWER_BYTES} are accepted; redirect to a page of yours instead");
        self.review.error(place, "too-long", message, hint);
        None
    }

    fn skip(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let mut skip = Skip {
            this_phase: parameters.phase == Some(Current::Current),
            this_ruleset: parameters.ruleset == Some(Current::Current),
            rulesets: parameters.rulesets.iter().map(|id| id.as_str().into()).collect(),
            rules: parameters.rules.values().flatten().map(|id| id.as_str().into()).collect(),
            ..Skip::default()
        };
        for (index, name) in parameters.phases.iter().enumerate() {
            match Phase::ALL.iter().find(|phase| phase.name() == name) {
                Some(phase) if *phase > at.phase => skip.phases.push(*phase),
                Some(_) => {
                    let message = format!("{} is over when this rule is looked at", quote(name));
                    let hint =
                        "a rule skips what comes later; `phase = \"current\"` is the rest of its own phase";
                    self.review.error(&at.of(&format!("phases[{index}]")), "phase-over", message, hint);
                }
                None => {
                    let message = format!("{} is no phase", quote(name));
                    let known: Vec<_> = Phase::ALL
                        .iter()
                        .filter(|phase| **phase > at.phase)
                        .map(|phase| phase.name())
                        .collect();
                    let hint = format!("known are: {}", known.join(", "));
                    self.review.error(&at.of(&format!("phases[{index}]")), "unknown-phase", message, hint);
                }
            }
        }
        for (index, name) in parameters.products.iter().enumerate() {
            if let Some(product) = Product::by_name(name) {
                skip.products.push(product);
            } else {
                let message = format!("{} is no product", quote(name));
                let known: Vec<_> = Product::ALL.iter().map(|(name, _)| *name).collect();
                let hint = format!("known are: {}", known.join(", "));
                self.review.error(&at.of(&format!("products[{index}]")), "unknown-product", message, hint);
            }
        }
        for (index, id) in parameters.rulesets.iter().enumerate() {
            self.known_ruleset(id, &at.of(&format!("rulesets[{index}]")), at.book);
        }
        for (ruleset, rules) in &parameters.rules {
            let place = at.of(&format!("rules.{ruleset}"));
            if let Some(draft) = self.known_ruleset(ruleset, &place, at.book) {
                for (index, id) in rules.iter().enumerate() {
                    if !draft.rules.iter().any(|rule| *rule.rule.id == **id) {
                        let message = format!("{} has no rule {}", quote(ruleset), quote(id));
                        self.review.error(
                            &format!("{place}[{index}]"),
                            "unknown-rule",
                            message,
                            "check its id",
                        );
                    }
                }
            }
        }
        if skip == Skip::default() {
            return self.needs(
                at,
                "phases",
                "phases = [\"http_request_firewall_managed\"], or ruleset = \"current\"",
            );
        }
        Some(Action::Skip(Arc::new(skip)))
    }

    fn redirect(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let Some(from) = &parameters.from_value else {
            return self.needs(at, "from_value", "from_value.target_url.value = \"https://example.org/\"");
        };
        let target = self.text(&from.target_url, &at.of("from_value.target_url"), at, |url| {
            let good = ["https://", "http://", "/"].iter().any(|front| url.starts_with(front));
            (!good).then_some("write a URL that begins with https://, http:// or /")
        });
        if !REDIRECTS.contains(&from.status_code) {
            let message = format!("{} is no status of a redirect", from.status_code);
            let hint = "write 301, 302, 303, 307 or 308";
            self.review.error(&at.of("from_value.status_code"), "bad-status", message, hint);
        }
        let (status, keep_query) = (from.status_code, from.preserve_query_string);
        Some(Action::Redirect(Arc::new(Redirect { target: target?, status, keep_query })))
    }

    fn redirect_from_list(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let Some(from) = &parameters.from_list else {
            return self.needs(at, "from_list", "from_list.name = \"moved_pages\"");
        };
        if !at.book.redirects.contains(&from.name) {
            let message = format!("there is no list of redirects {}", quote(&from.name));
            let hint = "add [[lists]] with this name and kind = \"redirect\", or [[feeds]] of kind \"redirect-list\"";
            self.review.error(&at.of("from_list.name"), "unknown-list", message, hint);
        }
        let key = self.value(&from.key, &at.of("from_list.key"), at.phase, at.book)?;
        Some(Action::RedirectFromList { list: from.name.as_str().into(), key })
    }

    fn rewrite_uri(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let uri = parameters.uri.clone().unwrap_or_default();
        if uri.path.is_none() && uri.query.is_none() {
            return self.needs(at, "uri", "uri.path.value = \"/new\"");
        }
        let mut part = |part: &Option<ValueOrExpression>,
                        key: &str,
                        refuse: fn(&str) -> Option<&'static str>| {
            part.as_ref().map(|part| self.text(part, &at.of(&format!("uri.{key}")), at, refuse)).transpose2()
        };
        let path = part(&uri.path, "path", |path| {
            let good = path.starts_with('/') && !path.contains(['?', '#']);
            (!good).then_some("a path begins with / and has no ? and no #")
        });
        let query = part(&uri.query, "query", |query| {
            query.contains('#').then_some("a query has no #; it is written without the ? before it")
        });
        Some(Action::RewriteUri { path: path?, query: query? })
    }

    fn rewrite_headers(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        if parameters.headers.is_empty() {
            return self.needs(
                at,
                "headers",
                "headers.x-from = { operation = \"set\", value = \"rempart\" }",
            );
        }
        let kept = if at.phase == Phase::LateTransform { KEPT_FROM_REQUESTS } else { KEPT_FROM_RESPONSES };
        let mut changes = Vec::new();
        for (name, change) in &parameters.headers {
            let place = at.of(&format!("headers.{name}"));
            if !is_token(name) {
                let message = format!("{} cannot be the name of a header field", quote(name));
                self.review.error(&place, "bad-header-name", message, "use letters, digits and hyphens");
            } else if kept.contains(&name.to_ascii_lowercase().as_str()) {
                let message = format!("{} is not for rules to change", quote(name));
                let hint = "it belongs to the connection, or Rempart writes it itself";
                self.review.error(&place, "kept-header", message, hint);
            } else if let Some(operation) = self.header_change(change, &place, at) {
                changes.push(HeaderChange { name: name.as_str().into(), operation });
            }
        }
        Some(Action::RewriteHeaders(changes.into()))
    }

    fn header_change(&mut self, change: &Change, place: &str, at: &At<'_>) -> Option<HeaderOperation> {
        let written =
            ValueOrExpression { value: change.value.clone(), expression: change.expression.clone() };
        if change.operation == Operation::Remove {
            if written != ValueOrExpression::default() {
                let message = "a field that is taken away has no value";
                self.review.error(place, "parameter-not-allowed", message, "remove value and expression");
            }
            return Some(HeaderOperation::Remove);
        }
        let text = self.text(&written, place, at, |value| {
            (!is_value(value)).then_some("use visible ASCII without space at its ends")
        })?;
        Some(match change.operation {
            Operation::Add => HeaderOperation::Add(text),
            Operation::Set | Operation::Remove => HeaderOperation::Set(text),
        })
    }

    fn route(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let origin = parameters.origin.clone().unwrap_or_default();
        let route = Route {
            host_header: parameters.host_header.as_deref().map(Into::into),
            host: origin.host.as_deref().map(Into::into),
            port: origin.port,
            sni: parameters.sni.as_ref().map(|sni| sni.value.as_str().into()),
        };
        if route == Route::default() {
            return self.needs(at, "origin", "origin.host = \"app.internal\", host_header, or sni.value");
        }
        for (text, key) in [
            (&parameters.host_header, "host_header"),
            (&origin.host, "origin.host"),
            (&parameters.sni.as_ref().map(|sni| sni.value.clone()), "sni.value"),
        ] {
            let bad = text.as_deref().filter(|text| !is_host(text, key == "host_header"));
            if let Some(bad) = bad {
                let message = format!("{} is no host name", quote(bad));
                self.review.error(&at.of(key), "bad-host", message, "write a name such as \"app.internal\"");
            }
        }
        Some(Action::Route(Arc::new(route)))
    }

    fn settings(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let settings = Settings {
            hotlink_protection: parameters.hotlink_protection,
            browser_integrity: parameters.bic,
            security_level: parameters.security_level,
        };
        if settings == Settings::default() {
            return self.needs(at, "hotlink_protection", "hotlink_protection = true");
        }
        if settings.security_level == Some(SecurityLevel::UnderAttack) {
            let message = "there is no challenge yet, so this would turn everybody away";
            let hint = "use a lower level, or rules that block";
            self.review.error(&at.of("security_level"), "no-challenge", message, hint);
        }
        Some(Action::SetConfig(settings))
    }

    fn cache_settings(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Action {
        let message = "nothing is kept of responses yet, so this rule has no effect";
        self.review.warning(
            &format!("{}.action", at.place),
            "no-cache",
            message,
            "remove it, or leave it for later",
        );
        Action::SetCacheSettings(Arc::new(CacheSettings {
            cache: parameters.cache,
            edge_ttl: parameters.edge_ttl.clone(),
            browser_ttl: parameters.browser_ttl.clone(),
            cache_key: parameters.cache_key.clone(),
            serve_stale: parameters.serve_stale.clone(),
            respect_strong_etags: parameters.respect_strong_etags,
            origin_error_page_passthru: parameters.origin_error_page_passthru,
        }))
    }

    fn compress(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        if parameters.algorithms.is_empty() {
            return self.needs(at, "algorithms", "algorithms = [{ name = \"auto\" }]");
        }
        let algorithm = |name: AlgorithmWord| match name {
            AlgorithmWord::None => Algorithm::None,
            AlgorithmWord::Auto => Algorithm::Auto,
            AlgorithmWord::Default => Algorithm::Default,
            AlgorithmWord::Gzip => Algorithm::Gzip,
            AlgorithmWord::Brotli => Algorithm::Brotli,
            AlgorithmWord::Zstd => Algorithm::Zstd,
        };
        Some(Action::Compress(parameters.algorithms.iter().map(|entry| algorithm(entry.name)).collect()))
    }

    fn serve_error(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let Some(content) = &parameters.content else {
            return self.needs(at, "content", "content = \"<h1>Back soon</h1>\"");
        };
        let content = self.answer(content, &at.of("content"))?;
        let content_type = match parameters.content_type.unwrap_or_default() {
            ErrorContentType::Html => "text/html; charset=utf-8",
            ErrorContentType::Json => "application/json",
            ErrorContentType::Text => "text/plain; charset=utf-8",
            ErrorContentType::Xml => "text/xml; charset=utf-8",
        };
        let answer = Answer { status: parameters.status_code, content_type: content_type.into(), content };
        Some(Action::ServeError(Arc::new(answer)))
    }

    fn log_fields(&mut self, parameters: &ActionParameters, at: &At<'_>) -> Option<Action> {
        let plain = |from, fields: &[crate::desired::rules::FieldName]| {
            fields.iter().map(move |field| (from, field.name.clone(), false)).collect::<Vec<_>>()
        };
        let response = |from, fields: &[crate::desired::rules::ResponseFieldName]| {
            let of = |field: &crate::desired::rules::ResponseFieldName| {
                (from, field.name.clone(), field.preserve_duplicates)
            };
            fields.iter().map(of).collect::<Vec<_>>()
        };
        let found = [
            ("request_fields", plain(FieldSource::Request, &parameters.request_fields)),
            (
                "transformed_request_fields",
                plain(FieldSource::TransformedRequest, &parameters.transformed_request_fields),
            ),
            ("response_fields", response(FieldSource::Response, &parameters.response_fields)),
            ("raw_response_fields", response(FieldSource::RawResponse, &parameters.raw_response_fields)),
            ("cookie_fields", plain(FieldSource::Cookie, &parameters.cookie_fields)),
        ];
        let mut fields = Vec::new();
        for (key, list) in found {
            for (index, (from, name, all)) in list.into_iter().enumerate() {
                if !is_token(&name) {
                    let message = format!("{} cannot be the name of a field", quote(&name));
                    let place = at.of(&format!("{key}[{index}].name"));
                    self.review.error(&place, "bad-header-name", message, "use letters, digits and hyphens");
                }
                let name = if from == FieldSource::Cookie { name } else { name.to_ascii_lowercase() };
                fields.push(LoggedField { from, name: name.into(), all });
            }
        }
        if fields.is_empty() {
            return self.needs(at, "request_fields", "request_fields = [{ name = \"x-session\" }]");
        }
        Some(Action::LogFields(fields.into()))
    }

    /// A value or an expression; `refuse` says what is wrong with a value.
    fn text(
        &mut self,
        text: &ValueOrExpression,
        place: &str,
        at: &At<'_>,
        refuse: impl Fn(&str) -> Option<&'static str>,
    ) -> Option<Text> {
        match (&text.value, &text.expression) {
            (Some(value), None) => {
                let visible = value.bytes().all(|byte| matches!(byte, b'!'..=b'~' | b' '));
                let why = if value.len() > TEXT_BYTES {
                    Some("it is too long")
                } else if !visible {
                    Some("use visible ASCII, and percent-encoding for anything else")
                } else {
                    refuse(value)
                };
                if let Some(hint) = why {
                    let message = format!("{} cannot stand here", quote(value));
                    self.review.error(&format!("{place}.value"), "bad-value", message, hint);
                }
                Some(Text::Value(value.as_str().into()))
            }
            (None, Some(expression)) => {
                let made = self.value(expression, &format!("{place}.expression"), at.phase, at.book)?;
                Some(Text::Made(made))
            }
            _ => {
                let message = "either a value or an expression is needed here";
                let hint = "write value = \"..\", or expression = \"..\", and not both";
                self.review.error(place, "value-or-expression", message, hint);
                None
            }
        }
    }
}

trait TransposeTwo<T> {
    fn transpose2(self) -> Option<Option<T>>;
}

impl<T> TransposeTwo<T> for Option<Option<T>> {
    /// Nothing wanted is something had; something wanted and not had is nothing.
    fn transpose2(self) -> Option<Option<T>> {
        match self {
            None => Some(None),
            Some(Some(text)) => Some(Some(text)),
            Some(None) => None,
        }
    }
}
