//! stub
pub struct AssetClient;
