#include "store/s3_client.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <random>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "base/thread_cancellation.h"

namespace valuescope::store {
namespace {

constexpr size_t kIdleConnections = 8;
constexpr size_t kMostHeaders = 64;
constexpr size_t kLongestError = 64 << 10;
constexpr absl::Duration kLongestPause = absl::Seconds(10);
// Beyond what a request takes at this speed it is not waited for.
constexpr absl::Duration kLongestAnswer = absl::Minutes(2);
constexpr int64_t kSlowestBytesPerSecond = 64 << 10;
// Between looks whether a pause was cut short; libcurl looks once a second at least.
constexpr absl::Duration kLook = absl::Milliseconds(100);

// As signatures want it: everything but what RFC 3986 reserves for nobody.
std::string PercentEncoded(absl::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._~", c)) {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return encoded;
}

absl::Status StatusOfCurl(CURLcode code) {
  switch (code) {
    case CURLE_OK:
      return absl::OkStatus();
    case CURLE_OUT_OF_MEMORY:  // also of a header that is longer than libcurl takes
      return Unreachable("no memory for its answer, or a header of it is too long");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return ErrorWithReason(absl::StatusCode::kUnavailable, "STORAGE_REFUSED",
                             "the certificate of the S3 store is not trusted: check --s3_endpoint "
                             "and --s3_ca_file");
    default:
      return Unreachable(curl_easy_strerror(code));
  }
}

// Once, before the first handle.
void StartCurl() {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  VS_CHECK(started == CURLE_OK);
}

}  // namespace

S3Body S3Body::OfText(std::string text) {
  S3Body body{.size = static_cast<int64_t>(text.size()), .sha256 = Sha256Hex(text)};
  body.read = [text = std::move(text)](int64_t offset, std::span<char> out) {
    std::memcpy(out.data(), text.data() + offset, out.size());
    return absl::OkStatus();
  };
  return body;
}

// One request on its way: what libcurl asks for and brings, through functions that it calls.
class S3Client::Transfer {
 public:
  Transfer(CURL* handle, const S3Request& request) : handle_(handle), request_(request) {}
  ~Transfer() { curl_slist_free_all(headers_); }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  void SetUp(const S3Options& options, const S3Credentials& credentials, const std::string& url) {
    curl_easy_reset(handle_);
    Set(CURLOPT_URL, url.c_str());
    Set(CURLOPT_PROTOCOLS_STR, "http,https");
    Set(CURLOPT_PATH_AS_IS, 1L);
    Set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
    Set(CURLOPT_NOSIGNAL, 1L);
    if (!options.ca_file.empty()) Set(CURLOPT_CAINFO, options.ca_file.c_str());
    SetTimes(options);
    SetCallbacks();
    SetCancellation();
    SetMethod();
    Sign(options, credentials);
    Set(CURLOPT_HTTPHEADER, headers_);
  }

  // The answer as far as it came, in any case.
  absl::Status Run(S3Answer& answer) {
    const CURLcode code = curl_easy_perform(handle_);
    answer = std::move(answer_);
    if (!failure_.ok()) return failure_;
    if (code == CURLE_ABORTED_BY_CALLBACK) VS_RETURN_IF_ERROR(ThreadCancellation::CheckGoesOn());
    VS_RETURN_IF_ERROR(StatusOfCurl(code));
    answer.status = HttpStatus();
    if (answer.status == request_.expected_status) return absl::OkStatus();
    return StatusOf(answer);
  }

  int64_t Count(CURLINFO what) const {
    curl_off_t count = 0;
    curl_easy_getinfo(handle_, what, &count);
    return count;
  }

 private:
  template <typename Value>
  void Set(CURLoption option, Value value) {
    if (curl_easy_setopt(handle_, option, value) == CURLE_OUT_OF_MEMORY) throw std::bad_alloc();
  }

  void AddHeader(absl::string_view name, absl::string_view value) {
    curl_slist* longer = curl_slist_append(headers_, absl::StrCat(name, ": ", value).c_str());
    if (longer == nullptr) throw std::bad_alloc();
    headers_ = longer;
  }

  void SetTimes(const S3Options& options) {
    const int64_t bytes =
        request_.body.size + (request_.content == nullptr ? 0 : request_.max_content);
    const absl::Duration longest = kLongestAnswer + absl::Seconds(bytes / kSlowestBytesPerSecond);
    Set(CURLOPT_CONNECTTIMEOUT_MS,
        static_cast<long>(absl::ToInt64Milliseconds(options.connect_timeout)));
    Set(CURLOPT_TIMEOUT_MS, static_cast<long>(absl::ToInt64Milliseconds(longest)));
    Set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    Set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(absl::ToInt64Seconds(options.longest_stall)));
  }

  void SetCallbacks() {
    Set(CURLOPT_HEADERDATA, this);
    Set(
        CURLOPT_HEADERFUNCTION, +[](char* bytes, size_t, size_t size, void* self) -> size_t {
          return static_cast<Transfer*>(self)->Guarded(&Transfer::TakeHeader, bytes, size);
        });
    Set(CURLOPT_WRITEDATA, this);
    Set(
        CURLOPT_WRITEFUNCTION, +[](char* bytes, size_t, size_t size, void* self) -> size_t {
          return static_cast<Transfer*>(self)->Guarded(&Transfer::TakeContent, bytes, size);
        });
    Set(CURLOPT_READDATA, this);
    Set(
        CURLOPT_READFUNCTION, +[](char* out, size_t, size_t size, void* self) -> size_t {
          return static_cast<Transfer*>(self)->GiveBody({out, size});
        });
    Set(CURLOPT_SEEKDATA, this);
    Set(
        CURLOPT_SEEKFUNCTION, +[](void* self, curl_off_t offset, int origin) -> int {
          if (origin != SEEK_SET) return CURL_SEEKFUNC_FAIL;
          static_cast<Transfer*>(self)->sent_ = offset;
          return CURL_SEEKFUNC_OK;
        });
  }

  // libcurl asks now and then, on this thread, whether it is to go on.
  void SetCancellation() {
    Set(CURLOPT_NOPROGRESS, 0L);
    Set(
        CURLOPT_XFERINFOFUNCTION,
        +[](void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) -> int {
          return ThreadCancellation::CheckGoesOn().ok() ? 0 : 1;
        });
  }

  void SetMethod() {
    const absl::string_view method = request_.method;
    if (method == "HEAD") Set(CURLOPT_NOBODY, 1L);
    if (method == "PUT" || method == "POST") {
      Set(CURLOPT_UPLOAD, 1L);
      Set(CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request_.body.size));
    }
    Set(CURLOPT_CUSTOMREQUEST, method == "HEAD" ? nullptr : request_.method);
  }

  // libcurl signs the headers that are given here; a line that takes one away ("Expect:") would
  // break its signature.
  void Sign(const S3Options& options, const S3Credentials& credentials) {
    Set(CURLOPT_AWS_SIGV4, absl::StrCat("aws:amz:", options.region, ":s3").c_str());
    Set(CURLOPT_USERNAME, credentials.access_key.c_str());
    Set(CURLOPT_PASSWORD, credentials.secret_key.c_str());
    for (const auto& [name, value] : request_.headers) AddHeader(name, value);
    AddHeader("x-amz-content-sha256", request_.body.sha256);
    if (!credentials.session_token.empty()) {
      AddHeader("x-amz-security-token", credentials.session_token);
    }
  }

  int HttpStatus() const {
    long status = 0;
    curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    return static_cast<int>(status);
  }

  // No exception may pass through libcurl.
  size_t Guarded(bool (Transfer::*take)(absl::string_view), const char* bytes, size_t size) {
    try {
      if ((this->*take)({bytes, size})) return size;
      failure_ = Unreachable("it answers with more than was asked for");
    } catch (const std::bad_alloc&) {
      failure_ =
          RetryLater("HOST_MEMORY_FULL", "no memory for what the S3 store sends", absl::Seconds(1));
    }
    return 0;
  }

  bool TakeHeader(absl::string_view line) {
    line = absl::StripAsciiWhitespace(line);
    if (absl::StartsWith(line, "HTTP/")) answer_.headers.clear();  // what came before is no answer
    const size_t colon = line.find(':');
    if (colon == absl::string_view::npos) return true;
    answer_.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    return answer_.headers.size() <= kMostHeaders;
  }

  bool TakeContent(absl::string_view bytes) {
    const int status = HttpStatus();
    if (status < 200 || status >= 300) {
      absl::StrAppend(&answer_.body, bytes.substr(0, kLongestError - answer_.body.size()));
      return true;
    }
    std::string& content = request_.content == nullptr ? answer_.body : *request_.content;
    received_ += static_cast<int64_t>(bytes.size());
    if (received_ > request_.max_content) return false;
    absl::StrAppend(&content, bytes);
    return true;
  }

  size_t GiveBody(std::span<char> out) {
    const auto count = static_cast<size_t>(
        std::min<int64_t>(static_cast<int64_t>(out.size()), request_.body.size - sent_));
    if (count == 0) return 0;
    failure_ = request_.body.read(sent_, out.first(count));
    if (!failure_.ok()) return CURL_READFUNC_ABORT;
    sent_ += static_cast<int64_t>(count);
    return count;
  }

  CURL* const handle_;
  const S3Request& request_;
  curl_slist* headers_ = nullptr;
  S3Answer answer_;
  absl::Status failure_;  // of this side
  int64_t sent_ = 0, received_ = 0;
};

void S3Client::FreeHandle::operator()(void* handle) const { curl_easy_cleanup(handle); }

S3Client::S3Client(S3Options options)
    : options_(std::move(options)), credentials_(options_.credentials_file) {
  StartCurl();
}

S3Client::~S3Client() = default;

S3Client::Attempts::Attempts(S3Client* client)
    : client_(client), end_(Clock::Steady().Now() + client->options_.patience) {}

bool S3Client::Attempts::Again(const absl::Status& status) {
  if (!IsPassing(status)) return false;
  const absl::Duration whole =
      std::min(kLongestPause, client_->options_.first_pause * (int64_t{1} << std::min(made_, 20)));
  // Servers that failed together must not come back together.
  std::uniform_real_distribution<double> part(0.5, 1);
  std::random_device random;
  const absl::Duration pause = whole * part(random);
  if (Clock::Steady().Now() + pause > end_) return false;
  ++made_;
  const absl::Time next = Clock::Steady().Now() + pause;
  for (absl::Duration left = pause; left > absl::ZeroDuration();
       left = next - Clock::Steady().Now()) {
    if (!ThreadCancellation::CheckGoesOn().ok()) return false;
    if (client_->stopped_.WaitForNotificationWithTimeout(std::min(left, kLook))) return false;
  }
  return true;
}

absl::StatusOr<S3Answer> S3Client::Send(const S3Request& request) {
  Attempts attempts(this);
  while (true) {
    absl::StatusOr<S3Answer> answer = Try(request, attempts);
    if (answer.ok() || !attempts.Again(answer.status())) return answer;
  }
}

absl::StatusOr<S3Answer> S3Client::Try(const S3Request& request, const Attempts& attempts) {
  VS_RETURN_IF_ERROR(ThreadCancellation::CheckGoesOn());
  VS_ASSIGN_OR_RETURN(const S3Credentials credentials, credentials_.Get());
  const absl::Time began = Clock::Steady().Now();
  Handle handle = TakeHandle();
  S3Answer answer;
  S3Exchange exchange{.operation = request.operation, .again = !attempts.first()};
  {
    Transfer transfer(handle.get(), request);
    transfer.SetUp(options_, credentials, UrlOf(request));
    exchange.status = transfer.Run(answer);
    exchange.sent = transfer.Count(CURLINFO_SIZE_UPLOAD_T);
    exchange.received = transfer.Count(CURLINFO_SIZE_DOWNLOAD_T);
  }
  exchange.http_status = answer.status;
  exchange.duration = Clock::Steady().Now() - began;
  GiveBack(std::move(handle));
  if (options_.on_exchange) options_.on_exchange(exchange);
  VS_RETURN_IF_ERROR(exchange.status);
  return answer;
}

void S3Client::StopRetrying() {
  absl::MutexLock lock(&mutex_);
  if (!stopping_) stopped_.Notify();
  stopping_ = true;
}

S3Client::Handle S3Client::TakeHandle() {
  {
    absl::MutexLock lock(&mutex_);
    if (!idle_.empty()) {
      Handle handle = std::move(idle_.back());
      idle_.pop_back();
      return handle;
    }
  }
  Handle handle(curl_easy_init());
  if (handle == nullptr) throw std::bad_alloc();
  return handle;
}

void S3Client::GiveBack(Handle handle) {
  absl::MutexLock lock(&mutex_);
  if (idle_.size() < kIdleConnections) idle_.push_back(std::move(handle));
}

std::string S3Client::UrlOf(const S3Request& request) const {
  absl::string_view endpoint = options_.endpoint;
  const std::string of_region = absl::StrCat("https://s3.", options_.region, ".amazonaws.com");
  if (endpoint.empty()) endpoint = of_region;
  std::string url;
  if (options_.bucket_in_host) {
    const size_t host = endpoint.find("://") + 3;
    url = absl::StrCat(endpoint.substr(0, host), options_.bucket, ".", endpoint.substr(host), "/",
                       request.key);
  } else {
    url = absl::StrCat(endpoint, "/", options_.bucket, request.key.empty() ? "" : "/", request.key);
  }
  char separator = '?';
  for (const auto& [name, value] : request.query) {
    absl::StrAppend(&url, absl::string_view(&separator, 1), PercentEncoded(name), "=",
                    PercentEncoded(value));
    separator = '&';
  }
  return url;
}

}  // namespace valuescope::store
