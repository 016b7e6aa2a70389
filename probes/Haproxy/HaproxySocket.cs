using System.Net.Sockets;
using System.Text;
using Sidecar.Probes.Sockets;

namespace Sidecar.Probes.Haproxy;

/// <summary>The stats socket gave no answer, or none that can be read.</summary>
public sealed class HaproxyException(string message) : Exception(message);

/// <summary>Asks HAProxy through its stats socket. Only <c>show</c> commands are sent: <c>level user</c> is enough for them.</summary>
public static class HaproxySocket
{
    /// <summary>How long an answer may take from the first byte sent to the last byte received.</summary>
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(2);

    /// <summary>A longer answer is not read: some four thousand servers with every column filled.</summary>
    private const int LongestAnswer = 4 * 1024 * 1024;

    /// <summary>One connection, one question; HAProxy closes it after its answer.</summary>
    /// <exception cref="HaproxyException">Nobody listens there, it may not be asked, or it does not answer rightly and in time.</exception>
    public static async Task<HaproxyStats> ReadAsync(string path, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Deadline);
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), limit.Token).ConfigureAwait(false);
            await socket.SendAsync("show info;show stat\n"u8.ToArray(), limit.Token).ConfigureAwait(false);
            return HaproxyStats.Parse(await ReceiveAsync(socket, limit.Token).ConfigureAwait(false))
                ?? throw new HaproxyException($"{path} does not answer as HAProxy does");
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new HaproxyException($"{path} does not answer within {Deadline.TotalSeconds} s");
        }
        catch (SocketException e)
        {
            throw new HaproxyException($"{UnixSocketError.Describe(path, e)}; HAProxy has to run with the line \"stats socket {path} mode 660 group conn-sidecar level user\"");
        }
        catch (ArgumentException e)
        {
            throw new HaproxyException($"{path}: {e.Message}");
        }
    }

    private static async Task<string> ReceiveAsync(Socket socket, CancellationToken cancellation)
    {
        using var answer = new MemoryStream();
        var buffer = new byte[16 * 1024];
        while (true)
        {
            var length = await socket.ReceiveAsync(buffer, cancellation).ConfigureAwait(false);
            if (length == 0)
            {
                return Encoding.UTF8.GetString(answer.GetBuffer(), 0, (int)answer.Length);
            }

            answer.Write(buffer, 0, length);
            if (answer.Length > LongestAnswer)
            {
                throw new HaproxyException($"the answer is longer than {LongestAnswer} bytes");
            }
        }
    }
}
