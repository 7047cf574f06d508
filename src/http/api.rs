//! stub
pub struct ApiClient;
