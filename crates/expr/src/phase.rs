//! The phases of a request, in the order they run.

macro_rules! phases {
    ($($name:ident $text:literal),+ $(,)?) => {
        /// Where an expression is used; the order is the order of a request's life.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Phase { $(#[doc = concat!("`", $text, "`.")] $name),+ }

        impl Phase {
            /// Every phase, in order.
            pub const ALL: &'static [Phase] = &[$(Phase::$name),+];

            /// The name the API and the configuration use.
            pub fn name(self) -> &'static str {
                match self { $(Phase::$name => $text),+ }
            }
        }
    };
}

phases! {
    RequestSanitize "http_request_sanitize",
    DynamicRedirect "http_request_dynamic_redirect",
    Transform "http_request_transform",
    ConfigSettings "http_config_settings",
    Origin "http_request_origin",
    Ddos "ddos_l7",
    FirewallCustom "http_request_firewall_custom",
    RateLimit "http_ratelimit",
    FirewallManaged "http_request_firewall_managed",
    BotFight "http_request_sbfm",
    Redirect "http_request_redirect",
    LateTransform "http_request_late_transform",
    CacheSettings "http_request_cache_settings",
    Snippets "http_request_snippets",
    CloudConnector "http_request_cloud_connector",
    ResponseCacheSettings "http_response_cache_settings",
    CustomErrors "http_custom_errors",
    ResponseHeaders "http_response_headers_transform",
    ResponseCompression "http_response_compression",
    ResponseFirewallManaged "http_response_firewall_managed",
    LogFields "http_log_custom_fields",
}
