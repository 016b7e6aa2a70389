using System.Globalization;

namespace Sidecar.Probes.Processes;

/// <summary>A user of /etc/passwd: local users only, so that no directory server is ever asked.</summary>
/// <param name="Name">Login name.</param>
/// <param name="Uid">User id.</param>
/// <param name="Gid">Its primary group.</param>
public sealed record LocalUser(string Name, uint Uid, uint Gid)
{
    /// <summary>By login name or, of digits alone, by user id; null where there is none, or the file cannot be read.</summary>
    public static LocalUser? Find(string user)
    {
        try
        {
            foreach (var line in File.ReadLines("/etc/passwd"))
            {
                var fields = line.Split(':');
                if (fields.Length > 3 && (fields[0] == user || fields[2] == user)
                    && uint.TryParse(fields[2], NumberStyles.None, CultureInfo.InvariantCulture, out var uid)
                    && uint.TryParse(fields[3], NumberStyles.None, CultureInfo.InvariantCulture, out var gid))
                {
                    return new LocalUser(fields[0], uid, gid);
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // no passwd, no users
        }

        return null;
    }

    /// <summary>Whether a user belongs to a group of /etc/group, by its list of members or as his primary one; false where either file cannot be read.</summary>
    public static bool IsMember(uint uid, string group)
    {
        if (Find(uid.ToString(CultureInfo.InvariantCulture)) is not { } user)
        {
            return false;
        }

        try
        {
            return File.ReadLines("/etc/group").Select(line => line.Split(':')).Any(fields => fields.Length > 3 && fields[0] == group
                && (fields[2] == user.Gid.ToString(CultureInfo.InvariantCulture) || fields[3].Split(',').Contains(user.Name)));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>The id of a group of /etc/group; null where there is none.</summary>
    public static uint? GroupId(string group)
    {
        try
        {
            return File.ReadLines("/etc/group").Select(line => line.Split(':')).Where(fields => fields.Length > 3 && fields[0] == group)
                .Select(fields => uint.TryParse(fields[2], NumberStyles.None, CultureInfo.InvariantCulture, out var id) ? id : (uint?)null).FirstOrDefault();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
