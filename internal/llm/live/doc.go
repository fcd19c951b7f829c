// Package live holds tests only: they ask real endpoints, those for which the environment has what is needed. Without
// PARLEY_TEST_LIVE they ask fakes alone, so that the tests themselves are known to work.
//
//	OPENAI_API_KEY                        and OPENAI_BASE_URL, OPENAI_MODEL where others are to be asked
//	ANTHROPIC_API_KEY                     and ANTHROPIC_BASE_URL, ANTHROPIC_MODEL
//	OPENROUTER_API_KEY                    and OPENROUTER_BASE_URL, OPENROUTER_MODEL
//	DIFY_API_KEY, the key of a chat app   and DIFY_BASE_URL
//	OLLAMA_BASE_URL                       and OLLAMA_MODEL
//
// `make live` runs them. They cost some hundred tokens at each endpoint. Endpoints that are not there are skipped, unless
// PARLEY_TEST_REQUIRE names live.
package live
